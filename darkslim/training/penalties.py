"""Constraints: what acts on the weights beside the loss, once an optimizer step.

A constraint is two calls around the optimizer's step, so that subgradients (before) and proximal steps, masks
and clamps (after) fit alike. A run has a list of them. They are called once an optimizer step that is taken,
whatever the number of micro-batches and processes, on gradients that are already unscaled and averaged: their
strength depends on none of these, and a step that float16 scaling skips is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .pressure import Pressed
from .progress import Progress
from .prunable import Gammas

ENOUGH = 1.2  # the dose that a suggestion aims at: gammas start near 1
TOO_MUCH = 10.0  # from which on what matters is pressed to zero, too


class Constraint(Protocol):
    """What acts on the weights beside the loss.

    Attributes:
        name: unlike that of other constraints of the run; its state is saved under it.
        s: its strength. channels: how many gammas it acts on.
        columns: names of what it reports after each epoch.
    """

    name: str
    s: float
    columns: tuple[str, ...]

    @property
    def channels(self) -> int: ...

    def before_step(self, progress: Progress) -> None:
        """Changes gradients: they are unscaled, averaged over processes and clipped."""

    def after_step(self, progress: Progress, lr: float) -> None:
        """Changes weights, after the optimizer has moved them."""

    def dose(self, rates: Sequence[float], momentum: float) -> float | None:
        """How far it can move a weight over a run of these learning rates; None where that has no meaning."""

    def finish(self, model) -> None:
        """Changes what is kept, in place: the network, or the average of its weights."""

    def report(self) -> dict[str, float]:
        """A number for each of its columns."""

    def state(self) -> dict:
        """Plain values and tensors that a resumed run needs."""

    def load(self, state: dict) -> None:
        """The inverse of `state`."""


class Penalty:
    """What all penalties on gammas share: the gammas, the strength, the schedule; no state.

    Args:
        gammas: layer by layer. s: strength. schedule: a name of `pressure.SCHEDULES`.
    """

    name = "penalty"
    momentum = True  # whether the optimizer may keep momentum on the gammas
    schedule = "constant"  # where none is asked for
    columns: tuple[str, ...] = ()

    def __init__(self, gammas: Sequence[Gammas], s: float, schedule: str = "constant"):
        self.pressed, self.s = Pressed(gammas, schedule), s

    @property
    def channels(self) -> int:
        return self.pressed.channels

    @property
    def gammas(self) -> list[Gammas]:
        return self.pressed.gammas

    def before_step(self, progress: Progress) -> None:
        """Adds `push` to the gradients."""
        values = self.pressed.values()
        self.pressed.add_to_gradients(self.s * self.pressed.factors(progress, values) * self.push(values))

    def push(self, values: Tensor) -> Tensor:
        """The slope of the penalty at strength 1 (n,), for gammas (n,); 0 if it only acts after steps."""
        return torch.zeros_like(values)

    def after_step(self, progress: Progress, lr: float) -> None:
        pass

    def pressing(self, rates: Sequence[float]) -> list[float]:
        """The learning rates of a whole run, 0 where it does not press."""
        return list(rates)

    def dose(self, rates: Sequence[float], momentum: float) -> float:
        return dose(self.s, self.pressing(rates), momentum if self.momentum else 0.0)

    def finish(self, model) -> None:
        pass

    def report(self) -> dict[str, float]:
        return {}

    def state(self) -> dict:
        return {}

    def load(self, state: dict) -> None:
        pass


class L1(Penalty):
    """Network slimming (Liu 2017, arXiv 1708.06519): gamma.grad += s * sign(gamma)."""

    name = "l1"

    def push(self, values: Tensor) -> Tensor:
        return values.sign()


class Proximal(Penalty):
    """Soft thresholding after the step (Ye 2018, arXiv 1802.00124): zeros are exact.

    The optimizer keeps no momentum on these gammas, so that none carries them back over zero.
    """

    name, momentum = "prox", False

    def after_step(self, progress: Progress, lr: float) -> None:
        values = self.pressed.values()
        threshold = lr * self.s * self.pressed.factors(progress, values)
        self.pressed.set(values.sign() * (values.abs() - threshold).clamp(min=0))


class Gate(Proximal):
    """Proximal L1 on gates (network/gates.py) in place of gammas, by default on the smaller half of them.

    It presses between a tenth of the run, when gradients have told small ones from large ones (all begin at
    1), and the last fifth of it, in which the rest of the network settles around those that are closed: these
    stay closed.
    """

    name, schedule = "gate", "lower-half"
    presses = (0.1, 0.8)  # shares of the run

    def before_step(self, progress: Progress) -> None:
        super().before_step(progress)
        self._closed = self.pressed.values() == 0

    def after_step(self, progress: Progress, lr: float) -> None:
        first, last = self.presses
        if first <= progress.share < last:
            super().after_step(progress, lr)
        elif progress.share >= last:
            values = self.pressed.values()
            self.pressed.set(values.masked_fill(self._closed, 0))

    def pressing(self, rates: Sequence[float]) -> list[float]:
        first, last = self.presses
        return [rate if first <= i / len(rates) < last else 0.0 for i, rate in enumerate(rates)]


class Polarization(Penalty):
    """s * sum(t |gamma| - |gamma - mean|) (Zhuang 2020, NeurIPS): small gammas go to zero, large ones away
    from it. Gammas stay in 0..1.
    """

    name, t = "polarization", 1.2

    def push(self, values: Tensor) -> Tensor:
        if not len(values):
            return values
        away = (values - values.mean()).sign()
        return self.t * values.sign() - away + away.mean()  # the mean moves with every gamma

    def after_step(self, progress: Progress, lr: float) -> None:
        self.pressed.set(self.pressed.values().clamp(0, 1))

    def dose(self, rates: Sequence[float], momentum: float) -> float:
        return (self.t + 1) * super().dose(rates, momentum)  # of those below the mean


class GroupLasso(Penalty):
    """s * |gammas of a class|_2 for each class (Yuan 2006): what goes together falls together."""

    name = "group"

    def push(self, values: Tensor) -> Tensor:
        if not len(values):
            return values
        number = self.pressed.classes().unique(return_inverse=True)[1]
        squares = torch.zeros(int(number.max()) + 1, device=values.device).index_add_(0, number, values**2)
        return values / squares.sqrt().clamp(min=1e-12)[number]


PENALTIES: dict[str, type[Penalty]] = {
    kind.name: kind for kind in (L1, Proximal, Polarization, GroupLasso, Gate)
}


def dose(s: float, rates: Sequence[float], momentum: float) -> float:
    """How far L1 can move a gamma over a run of SGD: s * sum(lr_t) / (1 - m). Much below 1 it can prune
    nothing.
    """
    return s * sum(rates) / (1 - momentum)


def suggested_s(unit: float, wanted: float = ENOUGH) -> float:
    """The s that gives the dose `wanted`, to two digits.

    Args:
        unit: the dose of s = 1.
    """
    return float(f"{wanted / unit:.2g}") if unit > 0 else float("nan")
