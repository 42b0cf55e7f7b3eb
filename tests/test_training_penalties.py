"""The penalty's gradient, the dose against simulated SGD, the learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.training.optim import FLOOR, Schedule, make_optimizer, make_schedule
from darkslim.training.penalties import L1, dose, suggested_s
from darkslim.training.prunable import Gammas, prunable_gammas, quintiles

CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
TEXT = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n"
    + CONV
    + CONV
    + CONV
    + "[shortcut]\nfrom=-3\nactivation=linear\n"
    + CONV
    + "[convolutional]\nfilters=6\nsize=1\nstride=1\npad=1\nactivation=linear\n[yolo]\nmask=0\nanchors=8,8\n"
    "num=1\nclasses=1\n"
)


def test_only_classes_with_one_producer_are_pressed():
    model = Darknet(parse_cfg(TEXT))
    gammas = prunable_gammas(model)
    assert [g.layer for g in gammas] == [1, 4]  # 0 and 2 are tied by the shortcut, 5 feeds the head
    assert all(g.mask.tolist() == [1, 1, 1, 1] for g in gammas)


def test_gradient_of_the_penalty():
    gamma = nn.Parameter(torch.tensor([0.5, -0.25, 0.0, 2.0]))
    gamma.grad = torch.tensor([1.0, 1.0, 1.0, 1.0])
    L1([Gammas(0, gamma, torch.tensor([1.0, 1, 1, 0]))], 0.1).before_step(0)
    assert torch.allclose(gamma.grad, torch.tensor([1.1, 0.9, 1.0, 1.0]))


@pytest.mark.parametrize("kind", ["cosine", "steps"])
def test_dose_is_how_far_sgd_moves_a_gamma(kind):
    schedule = Schedule(0.02, 800, burn_in=50, kind=kind, steps=(0.5, 0.75), scales=(0.1, 0.1))
    gamma = nn.Parameter(torch.tensor([5.0]))
    optimizer = torch.optim.SGD([gamma], lr=1.0, momentum=0.9)
    penalty = L1([Gammas(0, gamma, torch.ones(1))], 0.01)
    for step in range(800):
        optimizer.param_groups[0]["lr"] = schedule(step)
        gamma.grad = torch.zeros(1)
        penalty.before_step(step)
        optimizer.step()
    expected = dose(0.01, schedule.all(), 0.9)
    assert 5.0 - gamma.item() == pytest.approx(expected, rel=0.01)
    s = suggested_s(schedule.all(), 0.9)
    assert dose(s, schedule.all(), 0.9) == pytest.approx(1.2, rel=0.05)


def test_decay_on_convolution_weights_only():
    model = Darknet(parse_cfg(TEXT))
    optimizer = make_optimizer(model, 0.1, 0.9, 5e-4)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    convolutions = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d)}
    assert decayed == convolutions
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_burn_in_and_cosine():
    schedule = Schedule(1.0, 1000, burn_in=100)
    assert schedule(49) == pytest.approx(0.5**4) and schedule(99) == 1.0
    assert schedule(549) == pytest.approx((1 + FLOOR) / 2) and schedule(999) == pytest.approx(FLOOR)


def test_steps_are_stretched_over_the_run():
    net = {
        "learning_rate": 0.001,
        "burn_in": 1000,
        "max_batches": 10000,
        "steps": (8000, 9000),
        "scales": (0.1, 0.1),
    }
    schedule, said = make_schedule(net, 500, None, "steps")
    assert schedule.burn_in == 50 and "burn-in" in said[0]
    assert [schedule(i) for i in (100, 398, 399, 449)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])
    assert make_schedule(net, 20000, 0.5, "cosine")[0].lr == 0.5


def test_quintiles():
    gamma = nn.Parameter(torch.linspace(-1, 0, 11))
    assert quintiles([Gammas(0, gamma, torch.ones(11))]) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
