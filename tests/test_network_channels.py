"""Channel classes: every layer type on a network small enough to work out by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from darkslim.base.errors import RequestError
from darkslim.network import channels as module
from darkslim.network.cfg import parse_cfg
from darkslim.network.channels import RULES, Channels
from darkslim.network.graph import Graph
from darkslim.network.node import RULES as GRAPH_RULES

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
HEAD = (
    "[convolutional]\nfilters=12\nsize=1\nactivation=linear\n[yolo]\nmask=0,1\nanchors=4,5,10,12\n"
    "classes=1\nnum=2\n"
)


def conv(filters: int, size: int = 3, bn: bool = True, **keys) -> str:
    lines = {"filters": filters, "size": size, "stride": 1, "pad": 1, "activation": "leaky", **keys}
    if bn:
        lines["batch_normalize"] = 1
    return "[convolutional]\n" + "\n".join(f"{k}={v}" for k, v in lines.items()) + "\n"


def classes(*sections: str) -> Channels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Channels(Graph(parse_cfg(NET + "".join(sections) + HEAD)))


def test_every_type_of_the_graph_has_a_rule():
    assert set(RULES) == set(GRAPH_RULES)


def test_chain_makes_fresh_classes_and_protects_image_and_head():
    c = classes(conv(4), conv(5))
    assert [len(ids) for ids in c.ids] == [4, 5, 12, 12]
    assert len({*c.ids[0], *c.ids[1], *c.image_ids, *c.ids[2]}) == 3 + 4 + 5 + 12 == c.count
    assert list(c.prunable()) == [*c.ids[0], *c.ids[1]]
    assert c.protected[c.image_ids[0]] == "is the image"
    assert c.protected_layers() == [(2, "feeds [yolo] layer 3")]
    assert c.producers[c.ids[1][2]] == [(1, 2)]


def test_shortcut_unites_position_by_position():
    c = classes(conv(4), conv(6, 1), conv(4), "[shortcut]\nfrom=-3\nactivation=linear\n", conv(3))
    assert np.array_equal(c.ids[0], c.ids[2]) and np.array_equal(c.ids[3], c.ids[0])
    assert c.producers[c.ids[0][1]] == [(0, 1), (2, 1)]
    assert list(c.prunable()) == [*c.ids[1], *c.ids[4]]
    assert set(c.prunable("shortcut")) == {*c.ids[0], *c.ids[1], *c.ids[4]}
    reasons = dict(c.protected_layers())
    assert (
        reasons[0]
        == reasons[2]
        == "joined with layers 0, 2 by [shortcut]; `normal` cuts only what one convolution makes"
    )
    assert [layer for layer, _ in c.protected_layers("group")] == [5]


def test_shortcut_of_unequal_width_unites_the_first_channels_only():
    c = classes(conv(4), conv(6), "[shortcut]\nfrom=-2\nactivation=leaky\n", conv(3))
    assert np.array_equal(c.ids[1][:4], c.ids[0]) and len(set(c.ids[1])) == 6
    assert list(c.prunable()) == [*c.ids[1][4:], *c.ids[3]]
    assert dict(c.protected_layers())[1].startswith("4 of 6 channels: joined with layers 0, 1")
    narrow = classes(conv(6), conv(4), "[shortcut]\nfrom=-2\nactivation=leaky\n", conv(3))
    assert np.array_equal(narrow.ids[0][:4], narrow.ids[2]) and len(narrow.ids[2]) == 4


def test_nested_shortcuts_and_several_from_are_one_class():
    two, three = ("[shortcut]\nfrom=-2\nactivation=linear\n", "[shortcut]\nfrom=-2,0\nactivation=linear\n")
    c = classes(conv(4), conv(4), two, conv(4), three, conv(3))
    assert c.producers[c.ids[4][2]] == [(0, 2), (1, 2), (3, 2)]


def test_route_concatenates_and_slices_by_count():
    c = classes(
        conv(4), conv(6), "[route]\nlayers=-1,0\n", "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n", conv(3)
    )
    assert np.array_equal(c.ids[2], np.concatenate((c.ids[1], c.ids[0])))
    assert np.array_equal(c.ids[3], np.concatenate((c.ids[1][5:], c.ids[0])))
    assert c.slices == [(2, 2)]
    assert set(c.prunable()) == {*c.ids[0], *c.ids[1], *c.ids[4]}


@pytest.mark.parametrize(
    "section",
    [
        "[maxpool]\nsize=2\nstride=2\n",
        "[maxpool]\nsize=5\nstride=1\n",
        "[upsample]\nstride=2\n",
        "[dropout]\nprobability=.5\n",
        "[avgpool]\n",
    ],
)
def test_what_passes_channels_through(section):
    c = classes(conv(4), section, conv(3, 1))
    assert np.array_equal(c.ids[0], c.ids[1])


def test_products_unite():
    squeeze = ("[avgpool]\n", conv(4, 1, activation="logistic"), "[scale_channels]\nfrom=0\n")
    c = classes(conv(4), *squeeze, conv(4, 1), "[sam]\nfrom=-2\n", conv(2))
    assert np.array_equal(c.ids[3], c.ids[0]) and np.array_equal(c.ids[5], c.ids[0])
    assert [layer for layer, _ in c.producers[c.ids[0][3]]] == [0, 2, 4]


def test_depthwise_unites_input_and_output():
    c = classes(conv(4, 1), conv(4, 3, groups=4), conv(3, 1))
    assert np.array_equal(c.ids[0], c.ids[1])
    assert c.producers[c.ids[0][2]] == [(0, 2), (1, 2)]
    twice = classes(conv(4, 1), conv(8, 3, groups=4), conv(3, 1))
    assert np.array_equal(twice.ids[1], np.repeat(twice.ids[0], 2))


def test_grouped_convolution_ties_equal_positions():
    c = classes(conv(6, 1), conv(4, 3, groups=2), conv(3, 1))
    assert np.array_equal(c.ids[0][:3], c.ids[0][3:]) and len(set(c.ids[0])) == 3
    assert np.array_equal(c.ids[1][:2], c.ids[1][2:]) and len(set(c.ids[1])) == 2
    assert c.producers[c.ids[0][1]] == [(0, 1), (0, 4)]
    assert set(c.prunable()) == {*c.ids[0], *c.ids[1], *c.ids[2]}


def test_reorg3d_repeats_the_channels():
    c = classes(conv(3), "[reorg3d]\nstride=2\n", conv(3, 1))
    assert np.array_equal(c.ids[1], np.tile(c.ids[0], 4))


def test_reorg_ties_what_darknet_mixes_and_protects_it():
    """The classes hold for any size: checked against where each number of the input really goes."""
    import torch

    from darkslim.network.darknet import Darknet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = parse_cfg(NET + conv(8) + "[reorg]\nstride=2\n" + HEAD)
        model, c = Darknet(cfg), Channels(Graph(cfg))
    for size in (8, 10):  # 10: four channels do not divide the map, so they mix
        x = torch.arange(8.0).view(1, 8, 1, 1).expand(1, 8, size, size).contiguous()
        y = model.module_list[1](x)[0].numpy()
        for out, values in enumerate(y):
            assert {c.ids[0][int(v)] for v in np.unique(values)} == {c.ids[1][out]}
    assert len(set(c.ids[0])) == 2
    assert "[reorg] layer 1 mixes" in c.protected[c.ids[0][0]]
    assert not set(c.ids[0]) & set(c.prunable("group"))


def test_no_batch_norm_no_gamma():
    c = classes(conv(4, bn=False), conv(3))
    assert list(c.prunable()) == list(c.ids[1])
    assert dict(c.protected_layers())[0] == "has no batch_normalize, so no gamma"
    may = c.prunable_channels()
    assert may[1].all() and not may[0].any() and not may[2].any()


def test_what_is_not_understood_is_protected(monkeypatch):
    monkeypatch.delitem(module.RULES, "upsample")
    c = classes(conv(4), "[upsample]\nstride=2\n", conv(3, 1))
    assert (
        dict(c.protected_layers())[0]
        == "is read by [upsample] layer 1, through which channels cannot be followed"
    )
    assert list(c.prunable()) == list(c.ids[2])


def test_a_branch_that_nobody_reads_is_protected():
    c = classes(conv(4), conv(5), "[route]\nlayers=-2\n", conv(3))
    assert dict(c.protected_layers())[1] == "leaves the network at [convolutional] layer 1"
    assert not set(c.ids[1]) & set(c.prunable())


def test_unknown_strategy():
    with pytest.raises(RequestError, match="one of normal"):
        classes(conv(4)).obstacle(0, "best")


@pytest.mark.parametrize(
    "name",
    [
        "yolov3",
        "yolov3-spp",
        "yolov3-tiny",
        "yolov3-tiny-prn",
        "yolov4",
        "yolov4-tiny",
        "yolov4-csp",
        "yolov7-tiny",
        "yolov2",
        "enet",
        "csresnext",
        "sam",
        "reorg3d",
        "weighted-shortcut",
    ],
)
def test_every_family_can_be_pruned(golden, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from darkslim.network.cfg import read_cfg

        c = Channels(Graph(read_cfg(golden / name / "net.cfg")))
    assert len(c.prunable("normal"))
    assert set(c.prunable("normal")) <= set(c.prunable("group"))
    assert not any("cannot be followed" in reason for reason in c.protected.values())
