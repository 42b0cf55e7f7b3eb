"""The score that looks at data: what is left after the best repair, and how much the heads feel it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_cfgs import random_network
from test_pruning_reconstruct import CONV, network, pictures

from darkslim.base.errors import DatasetError, RequestError
from darkslim.network.channels import Channels
from darkslim.network.patches import draw, unfolded
from darkslim.network.walk import Walk
from darkslim.pruning import repair_error as module
from darkslim.pruning.importance import Context
from darkslim.pruning.plan import plan
from darkslim.pruning.repair_error import repair_error
from darkslim.pruning.sensitivity import sensitivity


def test_the_heads_feel_what_the_jacobian_says():
    model = network(CONV.format(4, 3, "mish") + CONV.format(3, 3, "leaky")).double()
    images = pictures(model, (3,))[0][0].double()
    found = sensitivity(model, list(images), draws=400, seed=1)
    maps = model.raw_heads(images)[0].detach()
    spread = maps.std((0, 2, 3), correction=0)
    for layer in (0, 1):
        total = 0.0
        for image in images:
            held = {}
            handle = model.convolutions()[layer].register_forward_hook(
                lambda m, i, out, held=held: out + held.get("moved", 0 * out)
            )

            def heads(moved, image=image, held=held):
                held["moved"] = moved
                return (model.raw_heads(image[None])[0] / spread[None, :, None, None, :]).flatten()

            zero = torch.zeros_like(
                model.convolutions()[layer](image[None])
                if layer == 0
                else model.layer_output(1, model.layer_output(0, image[None]))
            )
            jacobian = torch.autograd.functional.jacobian(heads, zero)
            handle.remove()
            total = total + (jacobian**2).sum((0, 1, 3, 4))
        assert torch.allclose(found[layer], total / len(images), rtol=0.15)


def test_a_removal_costs_what_solving_the_rest_again_leaves(monkeypatch):
    """Against least squares over all positions, for each channel by itself, then for two at once."""
    monkeypatch.setattr(module, "RIDGE", 1e-12)
    monkeypatch.setattr(module, "POSITIONS", 1 << 20)
    model = network(CONV.format(5, 3, "leaky") + CONV.format(6, 3, "leaky"))
    images = torch.cat([x for x, _ in pictures(model, (8, 8))])
    felt = torch.rand(6, dtype=torch.float64) + 0.5
    with torch.no_grad():
        reader = module._Reader(model, Walk(model, [images], 1 << 30), 1, Channels(model.graph), felt)
        conv = model.convolutions()[1]
        places = draw(len(images), (16, 16), 1 << 20, 0, "cpu")
        features = unfolded(conv, model.layer_output(0, images), places)[0].numpy()
    made = features @ conv.weight.detach().double().flatten(1).numpy().T

    def left(*gone: int) -> float:
        stays = [i for i in range(features.shape[1]) if i // 9 not in gone]
        f = np.column_stack((features[:, stays], np.ones(len(features))))
        rest = made - f @ np.linalg.lstsq(f, made, rcond=None)[0]
        return float((rest**2 * felt.numpy()).sum() / len(features))

    alone = [left(j) for j in range(5)]
    assert reader.errors() == pytest.approx(alone, rel=1e-4)
    first = int(np.argmin(alone))
    reader.remove(reader.ids[[first]])
    others = sorted(set(range(5)) - {first})
    assert reader.errors() == pytest.approx([left(first, j) - left(first) for j in others], rel=1e-3)
    assert reader.ids.tolist() == [Channels(model.graph).ids[0][j] for j in others]


def test_of_two_channels_that_say_the_same_one_is_free_and_the_other_is_not():
    model = network(CONV.format(6, 3, "leaky") + CONV.format(6, 3, "leaky"))
    first, bn = model.convolutions()[0], model.batch_norms()[0]
    with torch.no_grad():
        first.weight[4] = first.weight[2]
        for values in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
            values[4] = values[2]
    scores = repair_error(model, Channels(model.graph), pictures(model, (8, 8)))[0]
    pair, others = np.sort(scores[[2, 4]]), np.delete(scores, [2, 4])
    assert pair[0] < 0.01 * np.median(others) and pair[0] < others.min() and pair[1] > 0.2 * np.median(others)


def test_what_costs_more_may_be_cut_first():
    """The same channels at four times as many positions save four times the MACs."""
    scores = {}
    for stride in (1, 2):
        text = CONV.format(6, 3, "leaky").replace("stride=1", f"stride={stride}") + CONV.format(6, 1, "leaky")
        model = network(text)
        channels = Channels(model.graph)
        scores[stride] = module._macs(channels)[channels.ids[0]]
    assert (scores[1] == 4 * scores[2]).all()


def test_on_random_networks_and_as_a_plan():
    for seed in range(12):
        model = random_network(seed)
        channels = Channels(model.graph)
        batches = pictures(model, (2, 2), seed)
        scores = repair_error(model, channels, batches)
        for layer, values in scores.items():
            assert values.shape == (model.convolutions()[layer].out_channels,)
            assert np.isfinite(values).all() and (values >= 0).all(), f"seed {seed}"
        again = repair_error(model, channels, batches)
        assert all((again[layer] == values).all() for layer, values in scores.items())
    decision = plan(model, 0.5, strategy="slim", score="repair", context=Context(0, batches))
    assert decision.cut > 0 and decision.score == "repair"


def test_a_layer_that_is_constant_all_through():
    """As proximal steps leave it: every gamma 0, and betas that are not."""
    model = network(CONV.format(32, 3, "leaky") + CONV.format(32, 1, "leaky") + CONV.format(6, 3, "leaky"))
    with torch.no_grad():
        model.batch_norms()[0].weight.zero_()
        model.batch_norms()[0].bias.copy_(torch.rand(32) + 1)
    channels, batches = Channels(model.graph), pictures(model, (4, 4))
    scores = repair_error(model, channels, batches)
    assert all(np.isfinite(values).all() for values in scores.values())
    assert scores[0].max() < 1e-6 * scores[1].max() or scores[1].max() == 0
    decision = plan(model, 0.5, strategy="slim", score="repair", context=Context(0, batches))
    assert decision.cut > 0


def test_what_it_needs():
    model = network(CONV.format(6, 3, "leaky") * 2)
    with pytest.raises(RequestError, match="'repair' without training pictures"):
        plan(model, 0.5, score="repair")
    with pytest.raises(DatasetError, match="no batch"):
        plan(model, 0.5, score="repair", context=Context(0, []))
    broken = [(torch.full((2, 3, 16, 16), float("inf")), None)]
    with pytest.raises(DatasetError, match="layer 1 numbers that are not finite"):
        plan(model, 0.5, score="repair", context=Context(0, broken))
