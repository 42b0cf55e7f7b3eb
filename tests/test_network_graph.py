"""The graph against shapes worked out by hand, and every impossible network by name."""

import pytest

from darkslim.base.errors import CfgError, RequestError
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.graph import Graph, input_size
from darkslim.network.profile import count

NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"
HEAD = (
    "[convolutional]\nfilters=18\nsize=1\nstride=1\nactivation=linear\n[yolo]\nmask=0,1,2\nnum=3\n"
    "classes=1\nanchors=1,2,3,4,5,6\n"
)


def conv(filters=4, size=3, stride=1, **more):
    extra = "".join(f"{k}={v}\n" for k, v in more.items())
    return (
        f"[convolutional]\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=leaky\n{extra}"
    )


def graph(body, head=HEAD, net=NET):
    return Graph(parse_cfg(net + body + head, "x.cfg"))


def test_shapes_inputs_and_strides_by_hand():
    g = graph(
        conv(8, 3, 2)
        + conv(4, 1)
        + conv(8, 3, batch_normalize=1)
        + "[shortcut]\nfrom=-3\nactivation=linear\n"
        + "[maxpool]\nsize=2\nstride=2\n[upsample]\nstride=2\n[route]\nlayers=-1,3\n"
    )
    assert [n.shape for n in g.nodes[:7]] == [
        (8, 16, 32),
        (4, 16, 32),
        (8, 16, 32),
        (8, 16, 32),
        (8, 8, 16),
        (8, 16, 32),
        (16, 16, 32),
    ]
    assert [n.inputs for n in g.nodes[:7]] == [(-1,), (0,), (1,), (2, 0), (3,), (4,), (5, 3)]
    assert [n.stride for n in g.nodes[:7]] == [2, 2, 2, 2, 4, 2, 2]
    assert g.consumers[0] == (1, 3) and g.consumers[3] == (4, 6)
    assert g.heads == (8,)


def test_pools_as_darknet_sizes_them():
    g = graph(
        "[maxpool]\nsize=2\nstride=1\n[maxpool]\nsize=3\nstride=2\n[maxpool]\nsize=3\nstride=2\npadding=1\n"
        "[maxpool]\nstride=2\n"
    )
    # (in + padding - size) // stride + 1 with padding = size - 1, or the key's; size = stride by default
    assert [n.shape[1:] for n in g.nodes[:4]] == [(32, 64), (16, 32), (8, 16), (4, 8)]


def test_grouped_route_and_depthwise():
    g = graph(conv(8) + conv(8, 3, groups=8) + "[route]\nlayers=-1,-2\ngroups=2\ngroup_id=1\n")
    assert g.nodes[2].shape[0] == 8
    assert count(g).layers[1].macs == 8 * 32 * 64 * 9


def test_counts_by_hand():
    g = graph(conv(8, 3, 2, batch_normalize=1))
    p = count(g)
    assert p.params == (8 * 27 + 16) + (18 * 8 + 18)
    assert p.macs == 16 * 32 * (8 * 27 + 18 * 8)
    assert p.activation_bytes == 4 * 16 * 32 * (8 + 18)


def test_another_input_size():
    g = Graph(parse_cfg(NET + conv(8, 3, 2) + HEAD), height=100, width=60)
    assert g.nodes[0].shape == (8, 50, 30)


def test_golden_shapes(golden):
    import numpy as np

    for folder in sorted(p.parent for p in golden.glob("*/net.cfg")):
        g = Graph(read_cfg(folder / "net.cfg"))
        stored = np.load(folder / "golden.npz")
        names = [k for k in stored if k.startswith("layer_")]
        assert len(names) == len(g.nodes)
        for name in names:
            node = g.nodes[int(name[6:9])]
            assert stored[name].shape == node.shape and name[10:] == node.type, (folder.name, name)


@pytest.mark.parametrize(
    "body, message",
    [
        ("[route]\nlayers=0\n", r"x.cfg:6 \[route\] layer 0: layers=0 names layer 0, which is not before"),
        (conv() + "[route]\nlayers=-3\n", "layers=-3 reaches before layer 0"),
        (conv() + "[route]\nlayers=7\n", "layers=7 names layer 7"),
        (
            conv() + conv(stride=2) + "[route]\nlayers=-1,-2\n",
            "joins 32 x 16 .layer 1. with 64 x 32 .layer 0.",
        ),
        (conv() + "[shortcut]\nfrom=-9\n", "from=-9 reaches before"),
        (conv() + conv(stride=2) + "[shortcut]\nfrom=-2\n", "adds 64 x 32"),
        (conv(6) + conv(6, groups=4), "groups=4 does not divide the 6 filters"),
        (conv(6) + conv(8, groups=4), "groups=4 does not divide the 6 input channels"),
        (conv(10**9), "would take"),
        (conv(4, 99, 1).replace("pad=1", "pad=0"), "the output would be"),
        (conv(4, 2, dilation=2), "Darknet would take it for"),
        (conv() + "[sam]\nfrom=-1\n[scale_channels]\nfrom=-1\n", "one value a channel"),
        (conv() + "[route]\nlayers=-1\ngroups=2\ngroup_id=2\n", "group_id=2 with groups=2"),
        ("[lstm]\n", "not supported"),
    ],
)
def test_impossible_networks(body, message):
    with pytest.raises(CfgError, match=message):
        graph(body)


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "filters=18",
            "filters=255",
            r"x.cfg:6 .*255 filters feed the \[yolo\] of layer 1; filters=18: 3 anchors x \(5 \+ 1 classes\)",
        ),
        ("mask=0,1,2", "mask=0,1,3", "names anchor 3 of 3 .num=3, 3 given.; 0 to 2"),
        ("mask=0,1,2", "mask=-1,1,2", "names anchor -1"),
        ("5,6", "5", "are no pairs"),
        ("anchors=1,2,3,4,5,6\n", "", "anchors is missing"),
        ("5,6", "0,6", "above zero"),
        ("5,6", "nan,6", "finite"),
    ],
)
def test_impossible_heads(old, new, message):
    with pytest.raises(CfgError, match=message):
        graph("", HEAD.replace(old, new))


def test_sizes_are_bounded_before_anything_is_allocated():
    with pytest.raises(CfgError, match=r"x.cfg:2 \[net\]: the input would take"):
        graph("", net=NET.replace("width=64", "width=1000000").replace("height=32", "height=1000000"))


def test_no_detection_layer():
    with pytest.raises(CfgError, match="no detection layer"):
        graph(conv(), "")


def test_input_size_must_fit_the_stride():
    g = Graph(parse_cfg(NET.replace("width=64", "width=66") + conv(4, 3, 2) + conv(4, 3, 2) + HEAD, "x.cfg"))
    with pytest.raises(
        CfgError, match=r"x.cfg:2 \[net\]: width=66 is no multiple of the network's stride 4; use 64 or 68"
    ):
        input_size(g)
    with pytest.raises(
        RequestError, match="--img_size: 30 is no multiple of the network's stride 4; use 28 or 32"
    ):
        input_size(g, 30)
    assert input_size(g, 40) == (40, 40)
