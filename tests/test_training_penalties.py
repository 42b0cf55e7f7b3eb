"""The penalty's gradient, the dose against simulated SGD, the learning rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.training.optim import FLOOR, Schedule, make_optimizer, make_schedule
from darkslim.training.penalties import L1, PENALTIES, dose, suggested_s
from darkslim.training.progress import Progress
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
    L1([Gammas(0, gamma, torch.tensor([1.0, 1, 1, 0]))], 0.1).before_step(Progress())
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
        penalty.before_step(Progress())
        optimizer.step()
    expected = dose(0.01, schedule.all(), 0.9)
    assert 5.0 - gamma.item() == pytest.approx(expected, rel=0.01)
    s = suggested_s(dose(1.0, schedule.all(), 0.9))
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


def test_a_short_run_from_trained_weights_is_careful():
    """The share of the cfg's rate that the run has of the steps which give back what it loses first."""
    net = {"learning_rate": 0.004}
    schedule, said = make_schedule(net, 500, None, "cosine", trained=True)
    assert schedule.lr == pytest.approx(0.001) and "0.001 of the cfg's 0.004" in said[0]
    for steps, lr, trained in ((2000, None, True), (500, None, False), (500, 0.004, True)):
        schedule, said = make_schedule(net, steps, lr, "cosine", trained)
        assert schedule.lr == 0.004 and not said


def test_quintiles():
    gamma = nn.Parameter(torch.linspace(-1, 0, 11))
    assert quintiles([Gammas(0, gamma, torch.ones(11))]) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def some(values: list[float], classes: list[int] | None = None) -> list[Gammas]:
    """Two layers, of which the last channel may not be cut."""
    gamma = [nn.Parameter(torch.tensor(part)) for part in (values[:3] + [9.0], values[3:] + [9.0])]
    ids = classes or list(range(len(values)))
    ids = [torch.tensor(part + [-1]) for part in (ids[:3], ids[3:])]
    return [
        Gammas(n, g, torch.tensor([1.0] * (len(g) - 1) + [0.0]), c)
        for n, (g, c) in enumerate(zip(gamma, ids, strict=True))
    ]


VALUES = [0.5, -0.25, 0.9, 0.1, 0.7, 0.3]


@pytest.mark.parametrize("name", ["l1", "polarization", "group"])
def test_the_push_is_the_slope_of_the_penalty(name):
    gammas = some(VALUES, [0, 1, 2, 0, 1, 2])
    penalty = PENALTIES[name](gammas, 0.1)
    x = torch.tensor(VALUES, dtype=torch.float64, requires_grad=True)
    value = {
        "l1": lambda: x.abs().sum(),
        "polarization": lambda: (1.2 * x.abs() - (x - x.mean()).abs()).sum(),
        "group": lambda: (x.view(2, 3) ** 2).sum(0).sqrt().sum(),
    }[name]()
    (slope,) = torch.autograd.grad(0.1 * value, x)
    penalty.before_step(Progress())
    found = torch.cat([g.parameter.grad[g.mask > 0] for g in gammas])
    assert torch.allclose(found.double(), slope, atol=1e-6)
    assert all(g.parameter.grad[-1] == 0 for g in gammas), "what may not be cut is left alone"


def test_the_proximal_step_lands_on_zero_and_keeps_signs():
    gammas = some(VALUES)
    PENALTIES["prox"](gammas, 2.0).after_step(Progress(), 0.15)
    found = torch.cat([g.parameter.detach()[g.mask > 0] for g in gammas])
    assert torch.allclose(found, torch.tensor([0.2, 0.0, 0.6, 0.0, 0.4, 0.0]), atol=1e-6)
    assert (found[[1, 3]] == 0).all() and gammas[0].parameter[-1] == 9


def test_polarization_keeps_gammas_between_0_and_1():
    gammas = some([1.5, -0.25, 0.9, 0.1, 0.7, 0.3])
    PENALTIES["polarization"](gammas, 1.0).after_step(Progress(), 0.1)
    assert gammas[0].parameter.tolist() == pytest.approx([1.0, 0.0, 0.9, 9.0])


@pytest.mark.parametrize(
    "name, done, expected",
    [
        ("constant", 0.9, [1, 1, 1, 1, 1, 1]),
        ("global-decay", 0.49, [1, 1, 1, 1, 1, 1]),
        ("global-decay", 0.5, [0.01] * 6),
        ("local-decay", 0.49, [1, 1, 1, 1, 1, 1]),
        ("local-decay", 0.5, [1, 1, 0.01, 1, 1, 1]),
        ("lower-half", 0.0, [0, 1, 0, 1, 0, 1]),
    ],
)
def test_schedules(name, done, expected):
    gammas = some(VALUES)
    PENALTIES["l1"](gammas, 1.0, name).before_step(Progress(step=round(100 * done), steps=100))
    found = torch.cat([g.parameter.grad[g.mask > 0].abs() for g in gammas])
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", list(PENALTIES))
def test_each_dose_is_how_far_a_small_gamma_moves(name):
    """With SGD as the run sets it up: no momentum on what is moved by proximal steps."""
    rates = Schedule(0.02, 400, burn_in=20).all()
    gammas = some([0.4, 0.4, 0.9, 0.9, 0.9, 0.9])
    penalty = PENALTIES[name](gammas, 1e-3)
    momentum = 0.9 if penalty.momentum else 0.0
    optimizer = torch.optim.SGD([g.parameter for g in gammas], lr=1.0, momentum=momentum)
    for step, lr in enumerate(rates):
        progress = Progress(step=step, steps=len(rates))
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        penalty.before_step(progress)
        for g in gammas:
            g.parameter.grad = torch.zeros_like(g.parameter) if g.parameter.grad is None else g.parameter.grad
        optimizer.step()
        penalty.after_step(progress, lr)
    moved = 0.4 - gammas[0].parameter[0].item()
    slack = {"polarization": 0.5}.get(name, 0.02)  # its push is t + 1 less the mean of the signs
    assert moved == pytest.approx(penalty.dose(rates, 0.9), rel=slack)


def test_gates_close_in_between_and_stay_closed():
    gammas = some([2.0, 0.05, 0.04, 0.03, 3.0, 3.0])
    gate = PENALTIES["gate"](gammas, 1.0, "lower-half")

    def step(share: float, push: float = 0.0) -> list[float]:
        progress = Progress(step=round(100 * share), steps=100)
        gate.before_step(progress)
        gammas[0].parameter.data[:2] += push
        gate.after_step(progress, 0.1)
        return gammas[0].parameter[:2].tolist()

    assert step(0.05) == pytest.approx([2.0, 0.05]), "gradients have not parted them yet"
    assert step(0.5) == pytest.approx([2.0, 0.0])
    assert step(0.6, push=0.3) == pytest.approx([2.3, 0.2]), "while it presses, one can open again"
    assert step(0.7, push=-0.15) == pytest.approx([2.15, 0.0])
    assert step(0.9, push=0.3) == pytest.approx([2.45, 0.0]), "no more"


def test_classes_are_those_of_the_channels():
    model = Darknet(parse_cfg(TEXT))
    gammas = {g.layer: g for g in prunable_gammas(model, "slim")}
    assert torch.equal(gammas[0].classes, gammas[2].classes), "tied by the shortcut"
    assert not set(gammas[0].classes.tolist()) & set(gammas[1].classes.tolist())


def test_no_momentum_on_what_proximal_steps_move():
    model = Darknet(parse_cfg(TEXT))
    still = [g.parameter for g in prunable_gammas(model)]
    optimizer = make_optimizer(model, 0.1, 0.9, 5e-4, still)
    group = next(g for g in optimizer.param_groups if g["momentum"] == 0)
    assert [id(p) for p in group["params"]] == [id(p) for p in still] and group["weight_decay"] == 0
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))
