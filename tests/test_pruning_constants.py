"""Constants and carriers, against what the masked network really computes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from random_cfgs import random_network, randomise

from darkslim.base.errors import RequestError
from darkslim.network.cfg import parse_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.layers import ACTIVATIONS
from darkslim.network.node import RULES as GRAPH_RULES
from darkslim.network.twins import twin
from darkslim.pruning.carriers import cut_classes, cut_constants, fold
from darkslim.pruning.constants import RULES, activate, propagate
from darkslim.pruning.plan import masked, plan

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride=1\npad=1\nactivation={}\n"
HEAD = (
    "[convolutional]\nfilters=12\nsize=1\nstride=1\nactivation=linear\n[yolo]\nmask=0,1\n"
    "anchors=4,5,10,12\nclasses=1\nnum=2\n"
)


def network(*sections: str, seed: int = 0) -> Darknet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return randomise(
            Darknet(parse_cfg("[net]\nwidth=16\nheight=16\nchannels=3\n" + "".join(sections) + HEAD)), seed
        )


def test_every_type_is_followed():
    assert set(RULES) == set(GRAPH_RULES) - {"convolutional", "yolo", "region"}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_in_float64(name):
    values = np.array([-3.0, -0.5, 0.0, 0.5, 8.0, np.nan])
    made = activate(name, values)
    assert made.dtype == np.float64 and np.isnan(made[5])
    assert np.allclose(made[:5], ACTIVATIONS[name]()(torch.from_numpy(values[:5].copy())).numpy(), rtol=1e-15)
    assert values[0] == -3.0


def test_a_sum_by_hand():
    """Two cut producers with betas 2 and -1 (leaky: 2 and -0.1) meet in a shortcut: 1.9; the 1x1 behind it
    takes w * 1.9.
    """
    model = network(
        CONV.format(2, 3, "leaky") * 2, "[shortcut]\nfrom=0\nactivation=linear\n", CONV.format(1, 1, "leaky")
    )
    for layer, beta in ((0, 2.0), (1, -1.0)):
        model.batch_norms()[layer].bias.data[1] = beta
    keep = {0: np.array([True, False]), 1: np.array([True, False]), 3: np.array([True]), 4: np.ones(12, bool)}
    found = fold(model, Channels(model.graph), keep)
    weight = model.convolutions()[3].weight[0, 1].item()
    assert found.inflows[3].interior[0] == pytest.approx(1.9 * weight, rel=1e-6)
    assert 1 in found.inflows and found.inflows[1].padded
    assert len(found.carriers) == 1 and set(found.carriers[0].betas) == {(0, 1), (1, 1)}
    assert found.uses[1, 0].position == 1 and found.uses[1, 0].value == 1.0


def test_constants_are_what_the_masked_network_computes():
    checked = 0
    for seed in range(20):
        model = random_network(seed)
        try:
            p = plan(model, percent=0.6)
        except RequestError:
            continue
        channels = Channels(model.graph)
        values = propagate(model, channels, cut_constants(model, channels, p.keep))
        cut = cut_classes(channels, p.keep)
        x = torch.rand(1, *model.graph.input_shape, dtype=torch.float64)
        with torch.no_grad():
            outputs = twin(masked(model, p), dtype=torch.float64).layer_outputs(x)
        for node in model.graph.nodes:
            constant = ~np.isnan(values[node.index])
            assert np.array_equal(constant, cut[channels.ids[node.index]]), (seed, node.index, node.type)
            for c in np.flatnonzero(constant):
                real = outputs[node.index][0, c].numpy()
                assert np.abs(real - values[node.index][c]).max() < 1e-9 * (1 + abs(real).max()), (
                    seed,
                    node.index,
                    node.type,
                )
                checked += 1
    assert checked > 500


def test_no_carrier_where_nothing_flows():
    """Leaky with beta 0 leaves no constant, and a 1x1 consumer needs no carrier."""
    model = network(CONV.format(8, 3, "leaky"), CONV.format(8, 3, "leaky"), CONV.format(8, 1, "leaky"))
    model.batch_norms()[0].bias.data.zero_()
    p = plan(model, percent=0.6)
    assert not p.keep[0].all() and not p.keep[1].all()
    assert fold(model, Channels(model.graph), p.keep).carriers == ()
    model.batch_norms()[0].bias.data.fill_(0.3)
    carriers = fold(model, Channels(model.graph), p.keep).carriers
    assert [set(layer for layer, _ in c.betas) for c in carriers] == [{0}]


def test_one_carrier_serves_all_consumers_that_see_it():
    """Three padded convolutions read one layer through routes and pools: one carrier is enough."""
    branch = "[route]\nlayers=0\n" + CONV.format(4, 3, "mish")
    pooled = "[route]\nlayers=0\n[maxpool]\nsize=5\nstride=1\n" + CONV.format(4, 3, "mish")
    model = network(
        CONV.format(8, 3, "swish"),
        branch,
        branch,
        pooled,
        "[route]\nlayers=-1,-4,-6\n",
        CONV.format(6, 1, "leaky"),
    )
    p = plan(model, percent=0.4)
    assert not p.keep[0].all()
    found = fold(model, Channels(model.graph), p.keep)
    of_first = [c for c in found.carriers if (0 in {layer for layer, _ in c.betas})]
    assert len(of_first) == 1 and sum(use is not None for use in found.uses.values()) >= 3


def test_a_carrier_for_an_activation_that_never_reaches_one():
    model = network(CONV.format(8, 3, "logistic"), CONV.format(4, 3, "leaky"))
    p = plan(model, percent=0.5)
    found = fold(model, Channels(model.graph), p.keep)
    assert len(found.carriers) == 1
    assert found.uses[1, 0].value == pytest.approx(1 / (1 + np.exp(-1)))
