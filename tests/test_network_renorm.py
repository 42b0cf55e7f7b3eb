"""Batch norms said anew: the same function, and one that a training begins from."""

from __future__ import annotations

import pytest
import torch
from random_cfgs import random_network

from darkslim.base.errors import DatasetError
from darkslim.network import renorm
from darkslim.network.renorm import renormalize


def pictures(model, count=2, size=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (model.cfg.channels, model.cfg.height, model.cfg.width)
    return [torch.rand(size, *shape, generator=g, dtype=torch.float64) for _ in range(count)]


def alive(seed):
    """A network in which some norms have dead channels, constant ones and statistics that are far off."""
    model = random_network(seed).double().eval()
    g = torch.Generator().manual_seed(seed)
    for layer, bn in model.batch_norms().items():
        with torch.no_grad():
            bn.running_var *= 10 ** (4 * torch.rand(len(bn.running_var), generator=g) - 2)
            bn.running_var += renorm.LEAST
            bn.running_mean += torch.randn(len(bn.running_mean), generator=g)
            bn.weight[0] = 0.0
            model.convolutions()[layer].weight[-1] = 0.0
    return model


@torch.no_grad()
@pytest.mark.parametrize("seed", range(12))
def test_the_same_function_and_what_training_makes_of_it(monkeypatch, seed):
    model = alive(seed)
    batches = pictures(model)
    before = [model.raw_heads(x) for x in batches]
    carriers = {layer: bn.running_var[0].clone() for layer, bn in model.batch_norms().items()}
    assert renormalize(model, batches) == len(model.batch_norms())
    assert not model.training
    for x, heads in zip(batches, before, strict=True):
        for now, was in zip(model.raw_heads(x), heads, strict=True):
            torch.testing.assert_close(now, was, rtol=1e-7, atol=1e-7 * float(was.abs().max()))
    for layer, bn in model.batch_norms().items():
        assert bn.running_var[0] == carriers[layer] and bn.weight[0] == 0, "left as it is"
        assert (bn.running_var >= renorm.LEAST).all(), "readers differ in what they add to it"
    torch.manual_seed(0)
    whole = torch.cat(batches)
    monkeypatch.setattr(renorm, "LEAST", 0.0)
    renormalize(model, batches)
    plain = model.raw_heads(whole)
    for bn in model.batch_norms().values():
        bn.train()
    for now, was in zip(model.raw_heads(whole), plain, strict=True):  # by the batch's own statistics
        torch.testing.assert_close(now, was, rtol=1e-3, atol=1e-3 * float(was.abs().max()))


@torch.no_grad()
def test_before_it_training_makes_something_else():
    model = alive(0)
    whole = torch.cat(pictures(model))
    plain = model.raw_heads(whole)
    for bn in model.batch_norms().values():
        bn.train()
    far = max(float((now - was).abs().max()) for now, was in zip(model.raw_heads(whole), plain, strict=True))
    assert far > 0.1 * max(float(was.abs().max()) for was in plain)


def test_nothing_to_look_at_and_numbers_that_are_none():
    model = alive(1)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(DatasetError, match="no batch"):
        renormalize(model, [])
    broken = pictures(model)
    broken[0][:] = float("nan")
    with pytest.raises(DatasetError, match="not finite"):
        renormalize(model, broken)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
