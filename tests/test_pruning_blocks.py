"""Residual blocks: what may go, every reference afterwards, and outputs equal to a network whose blocks add
nothing.

DARKSLIM_NETWORKS=2000 draws more networks than the default.
"""

from __future__ import annotations

import os
import time
import warnings

import numpy as np
import pytest
import torch
from random_cfgs import random_network, randomise

import prune_utils
from darkslim.base.errors import CfgError, ProofError, RequestError, WeightsError
from darkslim.network import profile
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.twins import twin
from darkslim.network.weights import load_model
from darkslim.pruning import blocks as blocks_module
from darkslim.pruning.blocks import Block, Removal, find, prove_removal, remove, zeroed
from darkslim.pruning.parts import batch_norm
from darkslim.pruning.verify import save_proven

NETWORKS = int(os.environ.get("DARKSLIM_NETWORKS", "40"))
NET = "[net]\nwidth=16\nheight=16\nchannels=3\n"
HEAD = (
    "[convolutional]\nfilters=12\nsize=1\nactivation=linear\n[yolo]\nmask=0,1\nanchors=4,5,10,12\n"
    "classes=1\nnum=2\n"
)


def conv(filters=8, size=1, activation="leaky", bn=1, groups=1) -> str:
    return (
        f"[convolutional]\nbatch_normalize={bn}\nfilters={filters}\nsize={size}\npad=1\ngroups={groups}\n"
        f"activation={activation}\n"
    )


def shortcut(start="-3", activation="linear", more="") -> str:
    return f"[shortcut]\nfrom={start}\nactivation={activation}\n{more}"


BODY = conv(4) + conv(8, 3)
DROPOUT = "[dropout]\nprobability=.2\n"


def network(*parts: str, seed: int = 0) -> Darknet:
    return randomise(Darknet(parse_cfg(NET + "".join(parts), "x.cfg")), seed)


def set_scores(model: Darknet, **scores: float) -> Darknet:
    """set_scores(model, layer5=.25): the |gamma| of layer 5 are .05 and .45 in turn."""
    for name, score in scores.items():
        bn = batch_norm(model, int(name.removeprefix("layer")))
        bn.weight.data = torch.tensor([0.2 * score, -1.8 * score] * (bn.num_features // 2))
    return model


def double_maps(model, seed=0, images=2) -> list[torch.Tensor]:
    x = torch.rand(
        images, *model.graph.input_shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    with torch.inference_mode():
        return twin(model, "cpu", torch.float64).eval().raw_heads(x)


def equal(a, b) -> bool:
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# --- every reference, by hand
# ----------------------------------------------------------------------------------------

JOINED = (
    conv()  # 0
    + BODY
    + shortcut("-3")  # 1 2 3   adds layer 0
    + BODY
    + shortcut("3")  # 4 5 6   adds layer 3
    + conv(8, 3)  # 7
    + "[route]\nlayers = -1, 6, -5, -8,\n"  # 8       reads 7 6 3 0
    + conv()  # 9
    + shortcut("-4,3")  # 10      adds 6 and 3
    + "[avgpool]\n"
    + conv(8, 1, "logistic")  # 11 12
    + "[scale_channels]\nfrom=-10\n"  # 13      scales 3
    + conv(8, 1, "logistic")
    + "[sam]\nfrom=3\n"  # 14 15   times 3
    + "[route]\nlayers=+0,-1\n"
    + HEAD  # 16 17 18
)


@pytest.mark.parametrize(
    "gone, stay, expected",
    [
        (
            (1, 2, 3),
            (0, *range(4, 19)),
            {3: "0", 5: "-1,3,-5,-5,", 7: "-4,0", 10: "-10", 12: "0", 13: "+0,-1"},
        ),
        (
            (4, 5, 6),
            (0, 1, 2, 3, *range(7, 19)),
            {3: "-3", 5: "-1,3,-2,-5,", 7: "-4,3", 10: "-7", 12: "3", 13: "+0,-1"},
        ),
        ((1, 2, 3, 4, 5, 6), (0, *range(7, 19)), {2: "-1,0,-2,-2,", 4: "-4,0", 7: "-7", 9: "0", 10: "+0,-1"}),
    ],
    ids=["first", "second", "both"],
)
def test_every_kind_of_reference_is_renumbered(gone, stay, expected):
    model = set_scores(network(JOINED), layer2=0.1 if 3 in gone else 2, layer5=0.3 if 6 in gone else 2)
    removal = remove(model, len(gone) // 3)
    assert dict(removal.numbers) == {old: new for new, old in enumerate(stay)}
    found = {
        s.index: s.get("layers") or s.get("from")
        for s in removal.model.cfg.layers
        if s.get("layers") or s.get("from")
    }
    assert found == expected
    assert [s.type for s in removal.model.cfg.layers] == [model.graph.nodes[old].type for old in stay]
    assert prove_removal(model, removal).max_abs_diff == 0


def test_the_rest_of_the_text_stays_as_it_was():
    text = (
        f"# mine\n{NET}\n# stem\n[convolutional]\n batch_normalize = 1\nfilters=4\nactivation=leaky\n\n"
        "# block\n[convolutional] \nbatch_normalize=1\n# of the block\nfilters=4\nactivation=leaky\n\n"
        "[shortcut]\nfrom=-2\nactivation=linear\n\n# behind\n\n[route]\nlayers = -1 , -3\n\n"
        "[route]\n  layers=-2, -1\n\n" + HEAD
    )
    expected = (
        f"# mine\n{NET}\n# stem\n[convolutional]\n batch_normalize = 1\nfilters=4\nactivation=leaky\n\n"
        "# block\n# behind\n\n[route]\nlayers=-1,-1\n\n"
        "[route]\n  layers=-2, -1\n\n" + HEAD
    )
    for end in ("\n", "\r\n"):
        model = randomise(Darknet(parse_cfg(text.replace("\n", end), "x.cfg")), 0)
        removal = remove(model, 1)
        assert removal.model.cfg.to_bytes() == expected.replace("\n", end).encode()
        assert removal.model.cfg.path == "x.cfg" and prove_removal(model, removal).max_abs_diff == 0


def test_consecutive_blocks_go_in_any_number():
    """Five blocks in a row; a route reads each of the sums, by absolute and relative references."""
    model = network(
        conv(), *(BODY + shortcut() for _ in range(5)), "[route]\nlayers=3,-10,9,-4,15\n", HEAD, seed=3
    )
    orders = set()
    for count in range(6):
        removal = remove(model, count)
        kept = {3, 6, 9, 12, 15} - {b.shortcut for b in removal.blocks}
        last = 3 * len(kept)  # the last sum that stays; the route follows it
        a, b, c, d, e = (3 * len({k for k in kept if k <= old}) for old in (3, 6, 9, 12, 15))  # 0 is the stem
        route = removal.model.graph.nodes[last + 1]
        assert route.inputs == (a, b, c, d, e) and len(removal.model.graph.nodes) == last + 4
        assert (
            removal.model.cfg.layers[last + 1].get("layers") == f"{a},{b - last - 1},{c},{d - last - 1},{e}"
        )
        assert prove_removal(model, removal).max_abs_diff == 0
        orders.add((a, b, c, d, e))
    assert orders >= {(3, 6, 9, 12, 15), (0, 0, 0, 0, 0)} and len(orders) == 6


# --- which blocks
# ----------------------------------------------------------------------------------------------------


def test_blocks_come_by_mean_gamma_then_by_layer():
    model = network(conv(), *(BODY + shortcut() for _ in range(4)), HEAD)
    set_scores(model, layer2=0.5, layer5=0.25, layer8=0.5, layer11=0.125)
    found, refused = find(model)
    assert [(b.shortcut, b.source, b.body, b.convolution) for b in found] == [
        (12, 9, (10, 11), 11),
        (6, 3, (4, 5), 5),
        (3, 0, (1, 2), 2),
        (9, 6, (7, 8), 8),
    ]
    assert np.allclose([b.score for b in found], [0.125, 0.25, 0.5, 0.5], rtol=1e-7) and refused == ()
    assert remove(model, 3).blocks == found[:3]


def test_a_squeeze_and_excite_block_goes_as_a_whole():
    """As in EfficientNet: expand, depthwise, pool, two convolutions, scale, project, dropout, sum."""
    squeeze = (
        "[avgpool]\n"
        + conv(4, 1, "swish", bn=0)
        + conv(16, 1, "logistic", bn=0)
        + "[scale_channels]\nfrom=-4\n"
    )
    block = (
        conv(16, 1, "swish")
        + conv(16, 3, "swish", groups=16)
        + squeeze
        + conv(8, 1, "linear")
        + DROPOUT
        + shortcut("-9")
    )
    model = network(conv(), block, conv(), HEAD)
    (found,), refused = find(model)
    assert (found.source, found.shortcut, found.convolution, refused) == (0, 9, 7, ())
    removal = remove(model, 1)
    assert [n.type for n in removal.model.graph.nodes] == ["convolutional"] * 3 + ["yolo"]
    assert prove_removal(model, removal).max_abs_diff == 0


def test_a_route_inside_that_reads_only_the_block_is_no_obstacle():
    model = network(
        conv(),
        conv(4),
        "[route]\nlayers=-2\n",
        conv(4, 3),
        "[route]\nlayers=-1,1,0\n",
        conv(8),
        shortcut("0"),
        HEAD,
    )
    removal = remove(model, 1)
    assert removal.blocks[0].body == (1, 2, 3, 4, 5) and prove_removal(model, removal).max_abs_diff == 0


def test_an_activation_behind_the_sum_goes_with_the_block():
    model = network(conv(activation="linear"), BODY, shortcut(activation="relu"), HEAD)
    removal = remove(model, 1)
    reference = zeroed(model, removal.blocks)
    assert (
        reference.graph.nodes[3].opts["activation"] == "linear"
        and model.graph.nodes[3].opts["activation"] == "relu"
    )
    assert prove_removal(model, removal).max_abs_diff == 0
    with_activation = zeroed(model, ())
    batch_norm(with_activation, 2).weight.data.zero_()
    batch_norm(with_activation, 2).bias.data.zero_()
    assert not equal(
        double_maps(with_activation), double_maps(removal.model)
    )  # negative sums are no longer cut off


def test_inner_blocks_go_first_and_then_the_outer_one_may():
    model = network(conv(), conv(6), conv(4), conv(6, 3), shortcut("-3"), conv(8, 3), shortcut("0"), HEAD)
    found, refused = find(model)
    assert [b.shortcut for b in found] == [4]
    assert refused == ((6, "has the shortcut of layer 4 inside, and cannot go while that stands"),)
    first = remove(model, 1)
    second = remove(first.model, 1)
    assert prove_removal(model, first).max_abs_diff == prove_removal(first.model, second).max_abs_diff == 0
    assert [n.type for n in second.model.graph.nodes] == ["convolutional", "convolutional", "yolo"]


@pytest.mark.parametrize(
    "parts, reason",
    [
        ((BODY, conv(), shortcut("-4,-2")), "adds 3 layers, not two"),
        ((BODY, shortcut("-3", more="weights_type=per_feature\n")), "weights what it adds"),
        ((conv(4), conv(6), shortcut("-3")), "adds 8 channels (layer 0) to 6"),
        ((shortcut("-1"),), "adds layer 0 to itself"),
        ((DROPOUT, shortcut("0")), "adds layer 0 to itself"),
        (
            (conv(4), conv(8, 1, "logistic"), shortcut()),
            "adds layer 2, whose activation logistic is not 0 at 0",
        ),
        ((conv(4), conv(8, bn=0), shortcut()), "adds layer 2, which has no batch_normalize, so no gamma"),
        ((conv(8), "[maxpool]\nsize=3\nstride=1\n", shortcut()), "adds [maxpool] layer 2, not a convolution"),
        (
            (conv(4), conv(4), "[route]\nlayers=-1,-2\n", shortcut("-4")),
            "adds [route] layer 3, not a convolution",
        ),
        (
            (conv(), BODY, "[route]\nlayers=1,0\n", conv(), shortcut("1")),
            "has [route] layer 4 inside, which also reads layer 0",
        ),
        (
            (BODY, shortcut(), "[route]\nlayers=-1,1\n", conv()),
            "has layer 1 inside, which [route] layer 4 reads",
        ),
        ((BODY, shortcut(), conv(), shortcut("2")), "has layer 2 inside, which [shortcut] layer 5 reads"),
        ((HEAD, "[route]\nlayers=0\n", conv(), shortcut("0")), "has [yolo] layer 2 inside"),
        (
            (BODY, shortcut(), conv(12), conv(12), shortcut("-2"), HEAD.split("\n", 4)[-1]),
            "feeds [yolo] layer 7",
        ),
    ],
)
def test_what_cannot_go_is_said(parts, reason):
    model = network(conv(), *parts, "" if "[yolo]" in parts[-1] else HEAD)
    refused = find(model)[1]
    assert reason in [why for _, why in refused], refused
    with pytest.raises(RequestError) as e:
        remove(model, 9)
    assert reason in str(e.value) and str(e.value).count("\n") == 0
    for count in range(len(find(model)[0]) + 1):
        assert prove_removal(model, remove(model, count)).max_abs_diff == 0


def test_further_sums_that_feed_a_head_are_protected_too():
    bare_head = "[yolo]\nmask=0,1\nanchors=4,5,10,12\nclasses=1\nnum=2\n"
    model = network(
        conv(12), conv(4), conv(12), shortcut(), conv(4), conv(12), shortcut(), DROPOUT, bare_head
    )
    assert find(model) == ((), ((3, "feeds [yolo] layer 8"), (6, "feeds [yolo] layer 8")))


def test_the_image_is_never_a_source():
    for start in ("-3", "-1,-3"):
        with pytest.raises(CfgError, match="reaches before layer 0"):
            Darknet(parse_cfg(NET + conv(4) + conv(3) + shortcut(start) + HEAD))


def test_requests_that_cannot_be_met():
    model = network(conv(), BODY, shortcut(), BODY, conv(8, bn=0), shortcut("-4"), HEAD)
    with pytest.raises(RequestError) as e:
        remove(model, 2)
    assert str(e.value) == (
        "shortcuts: 2 residual blocks to remove; at most 1; the others stay: "
        "layer 7 adds layer 6, which has no batch_normalize, so no gamma"
    )
    for count in (-1, True, 1.0, "1", None):
        with pytest.raises(RequestError, match="a whole number of at least 0"):
            remove(model, count)
    with pytest.raises(RequestError, match="at most 0; the network has no other shortcut"):
        remove(network(conv(), HEAD), 1)
    many = network(conv(), *(conv(8, bn=0) + shortcut("-2") for _ in range(8)), HEAD)
    with pytest.raises(RequestError, match="; and 3 more$"):
        remove(many, 1)
    batch_norm(model, 2).weight.data[3] = float("nan")
    with pytest.raises(WeightsError, match=r"layer 2 \[convolutional\]: gamma of channel 3"):
        find(model)


# --- the network that comes out
# --------------------------------------------------------------------------------------


def test_nothing_removed_is_an_equal_copy():
    model = network(JOINED).train()
    model.seen = 640
    removal = remove(model, 0)
    assert removal.blocks == () and dict(removal.numbers) == {i: i for i in range(19)}
    assert removal.model.cfg.to_bytes() == model.cfg.to_bytes() and removal.model.cfg is not model.cfg
    assert not removal.model.training and removal.model.seen == 640
    assert equal(double_maps(removal.model), double_maps(model))
    removal.model.convolutions()[0].weight.data.zero_()
    assert model.convolutions()[0].weight.abs().min() > 0


def test_a_block_that_adds_nothing_can_go_without_a_change():
    """Compared with the model itself, not with `zeroed`."""
    model = network(
        conv(), BODY, shortcut(), conv(4), conv(8, 3, "mish"), DROPOUT, shortcut("3"), conv(8, 3), HEAD
    )
    for layer in (2, 5):
        batch_norm(model, layer).weight.data.zero_()
        batch_norm(model, layer).bias.data.zero_()
    removal = remove(model, 2)
    assert [n.type for n in removal.model.graph.nodes] == ["convolutional"] * 3 + ["yolo"]
    assert equal(double_maps(removal.model), double_maps(model))
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(x), removal.model(x))


def sources_by_hand(model, removal) -> None:
    """Inputs of the new graph against those of the old one, by a walk of its own: back over removed layers to
    what stays.
    """
    removed = {layer for b in removal.blocks for layer in (*b.body, b.shortcut)}
    for old, new in removal.numbers.items():
        expected = []
        for source in model.graph.nodes[old].inputs:
            while source in removed:
                source -= 1
            expected.append(source - sum(r < source for r in removed))
        node, was = removal.model.graph.nodes[new], model.graph.nodes[old]
        assert (node.type, node.inputs, node.shape, node.stride) == (
            was.type,
            tuple(expected),
            was.shape,
            was.stride,
        )
        for key in ("layers", "from"):
            if was.section.get(key):
                signs = [
                    [t.startswith("-") for t in s.get(key).split(",")]
                    for s in (was.section, removal.model.cfg.layers[new])
                ]
                assert signs[0] == signs[1]


@pytest.mark.parametrize("first", range(0, NETWORKS, 20))
def test_random_networks(first):
    removed = 0
    for seed in range(first, min(first + 20, NETWORKS)):
        model = random_network(seed, rare=seed % 2 > 0)
        model.seen = seed
        state, text = {k: v.clone() for k, v in model.state_dict().items()}, model.cfg.to_bytes()
        most = len(find(model)[0])
        for count in sorted({1, most}) if most else ():
            removal = remove(model, count)
            removed += count
            assert prove_removal(model, removal, images=1, seed=seed).max_abs_diff == 0, f"seed {seed}"
            sources_by_hand(model, removal)
            counted_by_text(model, removal)
            assert removal.model.seen == seed and not removal.model.training
        if most:  # and at the full size, in a way of its own
            assert equal(
                double_maps(zeroed(model, removal.blocks), seed), double_maps(removal.model, seed)
            ), f"seed {seed}"
        assert (
            all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
            and model.cfg.to_bytes() == text
        ), f"seed {seed}"
    assert removed >= 5


def counted_by_text(model, removal) -> None:
    """Parameters and MACs of what was written are those of the original less the layers that went."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = profile.count(Graph(parse_cfg(removal.model.cfg.to_bytes())))
    whole = profile.count(model.graph)
    assert counted.params == sum(t.numel() for t in removal.model.parameters())
    assert counted.params == whole.params - sum(
        x.parameters for x in whole.layers if x.index not in removal.numbers
    )
    assert counted.macs == whole.macs - sum(x.macs for x in whole.layers if x.index not in removal.numbers)


@pytest.mark.parametrize(
    "name, sums",
    [
        ("yolov3", {4, 7, 11, 14, 18}),
        ("yolov4", {7}),
        ("yolov4-csp", {7}),
        ("enet", {9}),
        ("csresnext", {4}),
        ("tiny-variance", {3}),
        ("non-square-grey", {4}),
        ("weighted-shortcut", set()),
        ("yolov3-tiny-prn", set()),
        ("sam", set()),
        ("yolov7-tiny", set()),
    ],
)
def test_golden_families(golden, name, sums):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(golden / name / "net.cfg", golden / name / "net.weights")
        found, refused = find(model)
        assert {b.shortcut for b in found} == sums
        assert {b.shortcut for b in found} | {layer for layer, _ in refused} == {
            n.index for n in model.graph.nodes if n.type == "shortcut"
        }
        removal = remove(model, len(found))
        assert prove_removal(model, removal).max_abs_diff == 0
        counted_by_text(model, removal)


def test_full_size_yolov3(root):
    """23 blocks, all of them removable; the bound is generous, so that a busy machine does not fail it."""
    cfg = read_cfg(root / "config" / "yolov3-hand.cfg")
    cfg.net.set("width", 64)  # for a quick proof; no parameter depends on it
    cfg.net.set("height", 64)
    model = Darknet(cfg).eval()
    for n, bn in enumerate(batch_norm(model, layer) for layer in model.batch_norms()):
        bn.weight.data.fill_(0.1 + 0.01 * (n * 37 % 100))
    start = time.perf_counter()
    found, refused = find(model)
    removal = remove(model, 23)
    assert time.perf_counter() - start < 10
    assert len(found) == 23 and refused == () and len(removal.model.graph.nodes) == 107 - 3 * 23
    assert sum(s.type == "shortcut" for s in removal.model.cfg.layers) == 0
    # what is left of the backbone is its six convolutions; 61 was the last sum of stage 4 (now layer 4), 36
    # of stage 3 (now 3)
    routes = {n.index: n.inputs for n in removal.model.graph.nodes if n.type == "route"}
    assert routes == {14: (10,), 17: (16, 4), 26: (22,), 29: (28, 3)}
    assert [s.get("layers") for s in removal.model.cfg.layers if s.type == "route"] == [
        "-4",
        "-1,4",
        "-4",
        "-1,3",
    ]
    assert prove_removal(model, removal, images=1).max_abs_diff == 0


# --- channels afterwards, files
# --------------------------------------------------------------------------------------


def test_channels_can_be_cut_afterwards():
    cut = 0
    for seed in range(24):
        model = random_network(seed, rare=seed % 2 > 0)
        count = len(find(model)[0])
        if not count:
            continue
        removal = remove(model, count)
        plan = prune_utils.plan(removal.model, percent=0.5)
        compact = prune_utils.apply(removal.model, plan)
        assert prune_utils.prove(removal.model, plan, compact, images=1).error <= 1e-5, f"seed {seed}"
        cut += plan.cut > 0
    assert cut >= 5


def test_it_is_written_and_read_back(tmp_path):
    model = network(JOINED)
    removal = remove(model, 2)
    cfg, pth, weights = (tmp_path / f"small.{end}" for end in ("cfg", "pth", "weights"))
    save_proven(removal.model, cfg, pth, weights)
    assert equal(double_maps(load_model(cfg, weights)), double_maps(zeroed(model, removal.blocks)))


# --- the proof finds faults
# ------------------------------------------------------------------------------------------


@pytest.fixture
def cut():
    model = network(
        conv(), BODY, shortcut(), BODY, shortcut("3"), "[route]\nlayers=0,6,-4\n", conv(8, 3, "mish"), HEAD
    )
    set_scores(model, layer2=0.1)
    return model, remove(model, 1)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_a_small_fault_in_any_kept_layer_is_found(cut, name):
    model, removal = cut
    for layer in removal.model.batch_norms():
        wrong = Removal(twin(removal.model), removal.blocks, removal.numbers)
        getattr(batch_norm(wrong.model, layer), name).data[:] += 0.01
        with pytest.raises(ProofError, match="without 1 residual blocks differs by"):
            prove_removal(model, wrong)


def test_numbers_that_are_none_and_other_shapes_do_not_pass(cut):
    model, removal = cut
    wrong = twin(removal.model)
    list(wrong.convolutions().values())[-1].bias.data[0] = float("nan")
    with pytest.raises(ProofError):
        prove_removal(model, Removal(wrong, removal.blocks, removal.numbers))
    other = network(conv(), "[maxpool]\nsize=2\nstride=2\n", HEAD)
    with pytest.raises(ProofError):
        prove_removal(model, Removal(other, removal.blocks, removal.numbers))


def test_references_that_were_not_renumbered_are_found(monkeypatch):
    model = network(conv(), BODY, shortcut(), conv(), conv(), conv(), "[route]\nlayers=4,-7\n", HEAD)
    removal = remove(model, 1)
    assert (
        removal.model.cfg.layers[4].get("layers") == "1,-4"
        and prove_removal(model, removal).max_abs_diff == 0
    )
    monkeypatch.setattr(blocks_module, "_moved", lambda text, old, new, number: "2" if text == "4" else "-4")
    with pytest.raises(ProofError, match="differs by"):
        prove_removal(model, remove(model, 1))
    monkeypatch.setattr(blocks_module, "_moved", lambda text, old, new, number: text)
    with pytest.raises(CfgError, match="layer 4"):
        remove(model, 1)


def test_another_block_than_the_one_removed_is_found(cut):
    model, removal = cut
    other = next(b for b in find(model)[0] if b not in removal.blocks)
    with pytest.raises(ProofError):
        prove_removal(model, Removal(removal.model, (other,), removal.numbers))


def test_blocks_of_another_network_are_refused(cut):
    model, _ = cut
    for block in (Block(10, 6, (7, 8, 9), 9, 0.0), Block(3, 1, (2,), 2, 0.0), Block(99, 1, (2,), 2, 0.0)):
        with pytest.raises(RequestError, match=f"layer {block.shortcut} ends no removable block of x.cfg"):
            zeroed(model, (block,))


def test_the_reference_is_a_copy_that_keeps_mode_and_precision(cut):
    model, removal = cut
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert not zeroed(model, removal.blocks).training
    model.train().double()
    reference = zeroed(model, removal.blocks)
    assert reference.training and next(reference.parameters()).dtype == torch.float64
    assert not batch_norm(reference, 2).weight.any() and not batch_norm(reference, 2).bias.any()
    changed = [k for k, v in reference.state_dict().items() if not torch.equal(v, before[k].to(v.dtype))]
    assert changed == ["module_list.2.batch_norm_2.weight", "module_list.2.batch_norm_2.bias"]
    assert all(torch.equal(v, before[k].to(v.dtype)) for k, v in model.state_dict().items())
