"""The cut itself: compact equals masked, borders included, for any network that the generator can think of.

DARKSLIM_NETWORKS=5000 draws more networks than the default.
"""

from __future__ import annotations

import dataclasses
import os
import time
import warnings

import numpy as np
import pytest
import torch
from pruning_draws import check
from random_cfgs import random_network, randomise

from darkslim.base.errors import RequestError
from darkslim.network import profile
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.cfg_plain import plain
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.weights import load_model
from darkslim.pruning.carriers import fold as folding
from darkslim.pruning.plan import masked, plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import prove

NETWORKS = int(os.environ.get("DARKSLIM_NETWORKS", "300"))
BLOCK = 25
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride={}\npad=1\nactivation={}\n"
HEAD = (
    "[convolutional]\nfilters=12\nsize=3\nstride=1\npad=1\nactivation=linear\n"
    "[yolo]\nmask=0,1\nanchors=4,5,10,12\nclasses=1\nnum=2\n"
)
FAMILIES = (
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "tiny-variance",
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
    "odd-kernels",
    "non-square-grey",
)


@pytest.mark.parametrize("first", range(0, NETWORKS, BLOCK))
def test_compact_equals_masked_for_random_networks(first):
    """Every strategy, score, ratio, floor, rounding, budget, and blocks; see pruning_draws.py for what is
    checked.
    """
    done = [check(seed) for seed in range(first, min(first + BLOCK, NETWORKS))]
    assert (
        sum(outcome is not None and outcome["cut"] > 0 for outcome in done) > len(done) // 3
    )  # most requests do cut


@pytest.mark.parametrize("fold", ["interior", "none"])
def test_other_ways_of_folding_keep_their_promise(fold):
    worst = 0.0
    for seed in range(12):
        model = random_network(seed)
        try:
            p = plan(model, percent=0.6, fold=fold)
        except RequestError:
            continue
        proof = prove(model, p, apply(model, p, fold), fold)
        assert proof.error <= 1e-5, f"seed {seed}"
        worst = max(worst, proof.relative)
    assert worst > 1e-3  # without carriers it is really another network, so the exact proof says something


def test_nothing_cut_nothing_changed():
    model = random_network(4)
    compact = apply(model, plan(model, percent=0))
    x = torch.rand(2, *model.graph.input_shape)
    with torch.inference_mode():
        assert torch.equal(model(x), compact(x))
    assert compact.cfg.to_bytes() == plain(model.cfg).to_bytes()


def test_only_filters_change_in_the_cfg():
    model = random_network(7)
    compact = apply(model, plan(model, percent=0.6))
    old, new = plain(model.cfg).text.splitlines(), compact.cfg.text.splitlines()
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert changed and all(
        a.startswith(("filters=", "groups=")) and b.startswith(a.split("=")[0]) for a, b in changed
    )


def test_it_holds_at_other_sizes_too():
    text = "".join(CONV.format(8, size, stride, "mish") for size, stride in ((3, 1), (3, 2), (5, 1)))
    model = randomise(Darknet(parse_cfg("[net]\nwidth=32\nheight=32\nchannels=3\n" + text + HEAD)), 1)
    p = plan(model, percent=0.5)
    compact = apply(model, p).double()
    whole = masked(model, p).double()
    with torch.inference_mode():
        for size in ((32, 32), (8, 48), (2, 2)):
            x = torch.rand(1, 3, *size, dtype=torch.float64)
            a, b = whole.raw_heads(x)[0], compact.raw_heads(x)[0]
            assert float((a - b).abs().max()) <= 1e-6 * float(a.abs().max()), size


@pytest.mark.parametrize("name", FAMILIES)
def test_every_golden_family_is_cut_exactly(golden, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(golden / name / "net.cfg", golden / name / "net.weights")
        for percent in (0.3, 0.8):
            p = plan(model, percent=percent)
            compact = apply(model, p)
            assert prove(model, p, compact).error <= 1e-5
            if p.cut:
                assert profile.count(compact.graph).params < profile.count(model.graph).params


def test_a_class_cut_by_a_bolder_plan_is_cut_exactly_too():
    """Residual chains as a whole, the way bolder strategies will cut them: the carrier is 1 in the first
    member, 0 in the rest.
    """
    block = (
        CONV.format(4, 1, 1, "leaky")
        + CONV.format(8, 3, 1, "leaky")
        + "[shortcut]\nfrom=-3\nactivation=linear\n"
    )
    text = CONV.format(8, 3, 1, "leaky") + block * 3
    model = randomise(Darknet(parse_cfg("[net]\nwidth=16\nheight=16\nchannels=3\n" + text + HEAD)), 3)
    p = plan(model, percent=0.5)
    keep = {layer: k.copy() for layer, k in p.keep.items()}
    for layer in (0, 2, 5, 8):
        keep[layer][[1, 3, 4]] = False
    bold = dataclasses.replace(p, keep=keep)
    compact = apply(model, bold)
    assert prove(model, bold, compact).error <= 1e-5
    found = folding(model, Channels(model.graph), keep)
    chain = [c for c in found.carriers if len(c.betas) == 4]
    assert len(chain) == 1 and sorted(chain[0].betas.values()) == [0, 0, 0, 1]
    assert compact.graph.nodes[0].shape[0] == 6


def test_full_size_network_in_seconds(root):
    """Plan and surgery on yolov3-tiny: the bound is generous, so that a busy machine does not fail it."""
    path = root / "config" / "yolov3-tiny-hand.cfg"
    model = randomise(Darknet(read_cfg(path)), 0)
    start = time.perf_counter()
    p = plan(model, percent=0.85)
    compact = apply(model, p)
    assert time.perf_counter() - start < 20
    assert np.isclose(p.cut / p.prunable, 0.85, atol=0.01)
    assert profile.count(compact.graph).params < 0.2 * profile.count(model.graph).params
