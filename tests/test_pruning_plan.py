"""Plans: threshold, ties, floors, rounding, slices, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from random_cfgs import random_network

from darkslim.base.errors import RequestError, WeightsError
from darkslim.network.cfg import parse_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.pruning import importance
from darkslim.pruning.carriers import fold
from darkslim.pruning.plan import check, masked, plan

HEAD = (
    "[convolutional]\nfilters=12\nsize=1\nstride=1\nactivation=linear\n[yolo]\nmask=0,1\n"
    "anchors=4,5,10,12\nclasses=1\nnum=2\n"
)


def network(*gammas, between: str = "", last: str = HEAD) -> Darknet:
    """A chain of 3x3 convolutions with the given gammas."""
    text = "[net]\nwidth=16\nheight=16\nchannels=3\n"
    for values in gammas:
        text += (
            f"[convolutional]\nbatch_normalize=1\nfilters={len(values)}\nsize=3\nstride=1\npad=1\n"
            "activation=leaky\n"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Darknet(parse_cfg(text + between + last, "net.cfg")).eval()
    with torch.no_grad():
        for layer, values in enumerate(gammas):
            model.batch_norms()[layer].weight.copy_(torch.tensor(values))
            model.batch_norms()[layer].bias.uniform_(-1, 1)
    return model


def kept(plan, layer: int) -> list[int]:
    return np.flatnonzero(plan.keep[layer]).tolist()


def test_the_smallest_gammas_of_all_layers_go():
    p = plan(network([0.9, -0.1, 0.5, 0.8], [0.2, 0.7, -0.6]), percent=0.43, layer_keep=0)
    assert (p.prunable, p.requested, p.cut) == (7, 3, 3)
    assert kept(p, 0) == [0, 3] and kept(p, 1) == [1, 2] and kept(p, 2) == list(range(12))
    assert p.threshold == pytest.approx(0.5) and p.protected == ((2, "feeds [yolo] layer 3"),)
    assert np.allclose(p.scores, [0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9])


def test_a_plan_is_frozen():
    p = plan(network([0.9, -0.1], [0.2, 0.7]), percent=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.percent = 0.1
    with pytest.raises(ValueError):
        p.keep[0][0] = False
    with pytest.raises(TypeError):
        p.keep[0] = np.ones(2, bool)


def test_percent_zero_keeps_all():
    p = plan(network([0.9, 0.0], [0.2, 0.7]), percent=0)
    assert p.cut == 0 and p.threshold == 0 and all(k.all() for k in p.keep.values())


def test_percent_one_leaves_every_layer_at_its_floor():
    p = plan(network([0.9, 0.1, 0.5, 0.8], [0.2, 0.7, 0.6]), percent=1, layer_keep=0.5)
    assert kept(p, 0) == [0, 3] and kept(p, 1) == [1, 2]
    assert p.requested == 7 and p.cut == 3


def test_ties_go_by_layer_and_channel():
    model = network([1.0] * 4, [1.0] * 4)
    assert kept(plan(model, percent=0.5, layer_keep=0), 0) == [
        3
    ]  # the floor takes one back, the next in order goes instead
    assert kept(plan(model, percent=0.5, layer_keep=0), 1) == [1, 2, 3]
    again = [plan(model, percent=0.6).keep[1].tolist() for _ in range(3)]
    assert again[0] == again[1] == again[2]


def test_the_floor_holds_and_the_request_is_met_elsewhere():
    p = plan(network([0.01, 0.02, 0.03, 0.04], [0.5, 0.6, 0.7, 0.8]), percent=0.5, layer_keep=0.5)
    assert kept(p, 0) == [2, 3] and kept(p, 1) == [2, 3] and p.cut == 4


def test_floor_is_not_raised_by_rounding_errors():
    p = plan(network([float(i) for i in range(30)], [0.5] * 2), percent=1, layer_keep=0.1)
    assert kept(p, 0) == [27, 28, 29]


def test_rounding_takes_back_the_best_and_counts_carriers():
    model = network([0.1 * i for i in range(1, 17)], [0.05 * i for i in range(1, 13)])
    for percent in (0.2, 0.5, 0.7):
        p = plan(model, percent=percent, round_to=4)
        widths = {layer: int(k.sum()) for layer, k in p.keep.items()}
        for carrier in fold(model, Channels(model.graph), p.keep).carriers:
            for layer, _ in carrier.betas:
                widths[layer] += 1
        assert widths[0] % 4 == 0 and widths[1] % 4 == 0 and p.cut >= p.requested
        bare = plan(model, percent=percent, round_to=4, fold="none")
        assert int(bare.keep[0].sum()) % 4 == 0
        for layer in (0, 1):  # what is kept is the best of its layer
            assert kept(p, layer) == list(range(len(p.keep[layer]) - len(kept(p, layer)), len(p.keep[layer])))


def test_slices_keep_equally_many():
    slice_ = "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
    p = plan(
        network([1.0] * 4, [0.01, 0.02, 0.03, 0.9, 0.5, 0.6, 0.7, 0.8], between=slice_),
        percent=0.25,
        layer_keep=0,
    )
    assert p.cut >= 3 and p.keep[1][:4].sum() == p.keep[1][4:].sum()


@pytest.mark.parametrize(
    "request_",
    [
        {"percent": -0.1},
        {"percent": 1.01},
        {"percent": math.nan},
        {"percent": "x"},
        {"layer_keep": math.nan},
        {"layer_keep": 2},
        {"round_to": 0},
        {"round_to": 2.5},
        {"strategy": "best"},
        {"fold": "some"},
    ],
)
def test_requests_that_cannot_be(request_):
    with pytest.raises(RequestError):
        plan(network([1.0, 0.5]), **request_)


def test_nothing_prunable():
    with pytest.raises(RequestError, match="nothing can be pruned by strategy normal; layer 0 feeds"):
        plan(network())


def test_gammas_that_are_no_numbers():
    with pytest.raises(WeightsError, match="layer 1 .*gamma of channel 1 is nan"):
        plan(network([1.0, 0.5], [1.0, math.nan]))


def test_masked_changes_gammas_only_and_not_the_model():
    model = network([0.9, -0.1, 0.5], [0.2, 0.7, -0.6])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    p = plan(model, percent=0.5)
    twin = masked(model, p)
    for key, value in twin.state_dict().items():
        expected = before[key].clone()
        if key.endswith(("batch_norm_0.weight", "batch_norm_1.weight")):
            expected[torch.from_numpy(~p.keep[int(key.split(".")[1])])] = 0
        assert torch.equal(value, expected), key
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_plan_for_another_network_is_refused():
    p = plan(network([0.9, -0.1, 0.5], [0.2, 0.7, -0.6]), percent=0.5)
    for other in (network([1.0, 1.0, 1.0]), network([1.0] * 4, [1.0] * 3)):
        with pytest.raises(RequestError, match="plan"):
            masked(other, p)


def test_members_of_a_class_that_disagree_are_refused():
    text = (
        "[convolutional]\nbatch_normalize=1\nfilters=3\nsize=3\npad=1\nstride=1\nactivation=leaky\n"
        "[shortcut]\nfrom=0\nactivation=linear\n"
    )
    model = network([0.9, 0.1, 0.5], [0.9, 0.1, 0.5], between=text)
    p = plan(model, percent=0)
    keep = {layer: k.copy() for layer, k in p.keep.items()}
    keep[0][1] = False
    with pytest.raises(
        RequestError, match="layer 2: channel 1 is kept, but a channel that it is joined with is cut"
    ):
        check(dataclasses.replace(p, keep=keep), Channels(model.graph))
    keep[2][1] = False
    check(dataclasses.replace(p, keep=keep), Channels(model.graph))  # both go: a plan of a bolder strategy
    keep[1][:] = False
    with pytest.raises(RequestError, match="layer 1: is left without a channel"):
        check(dataclasses.replace(p, keep=keep), Channels(model.graph))


def test_random_networks_meet_their_requests():
    for seed in range(25):
        model = random_network(seed)
        try:
            everything = plan(model, percent=1, layer_keep=0.2, fold="none").cut
        except RequestError as e:
            assert "nothing can be pruned" in str(e)
            continue
        for percent in (0.2, 0.5, 0.8):
            p = plan(model, percent=percent, layer_keep=0.2)
            assert p.requested == math.floor(percent * p.prunable + 1e-9)
            assert p.cut >= min(p.requested, everything), (seed, percent)
            for layer, keep in p.keep.items():
                assert keep.all() or keep.sum() >= math.ceil(0.2 * len(keep) - 1e-9), (seed, layer)


def test_the_heap_at_zero_is_seen():
    dense = importance.sparsity(np.random.default_rng(0).uniform(0.3, 1.5, 500))
    assert not dense.trained and dense.near_zero == 0
    sparse = importance.sparsity(np.r_[np.full(400, 0.001), np.linspace(0.2, 1, 100)])
    assert sparse.trained and sparse.near_zero == pytest.approx(0.8)
    assert sum(count for _, _, count in sparse.histogram) == 500
    assert importance.sparsity(np.zeros(3)).near_zero == 1
