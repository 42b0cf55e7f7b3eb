"""Constraints: what acts on the weights beside the loss, once an optimizer step.

A constraint is two calls around the optimizer's step, so that subgradients (before) and proximal steps, masks
and clamps (after) fit alike. A run has a list of them. They are called once an optimizer step that is taken,
whatever the number of micro-batches and processes, on gradients that are already unscaled and averaged: their
strength depends on none of these, and a step that float16 scaling skips is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .progress import Progress
from .prunable import Gammas

ENOUGH = 1.2  # the dose that a suggestion aims at: gammas start near 1
TOO_MUCH = 10.0  # from which on what matters is pressed to zero, too


class Constraint(Protocol):
    """What acts on the weights beside the loss.

    Attributes:
        name: unlike that of other constraints of the run; its state is saved under it.
        s: its strength. channels: how many gammas it acts on.
    """

    name: str
    s: float

    @property
    def channels(self) -> int: ...

    def before_step(self, progress: Progress) -> None:
        """Changes gradients: they are unscaled, averaged over processes and clipped."""

    def after_step(self, progress: Progress, lr: float) -> None:
        """Changes weights, after the optimizer has moved them."""

    def dose(self, rates: Sequence[float], momentum: float) -> float | None:
        """How far it can move a weight over a run of these learning rates; None where that has no meaning."""

    def state(self) -> dict:
        """Plain values and tensors that a resumed run needs."""

    def load(self, state: dict) -> None:
        """The inverse of `state`."""


class L1:
    """Network slimming (Liu 2017, arXiv 1708.06519): gamma.grad += s * sign(gamma)."""

    name = "l1"

    def __init__(self, gammas: Sequence[Gammas], s: float):
        self.gammas, self.s = list(gammas), s

    @property
    def channels(self) -> int:
        return sum(int(g.mask.sum()) for g in self.gammas)

    def before_step(self, progress: Progress) -> None:
        for g in self.gammas:
            push = g.parameter.detach().sign() * g.mask * self.s
            if g.parameter.grad is None:
                g.parameter.grad = push
            else:
                g.parameter.grad.add_(push)

    def after_step(self, progress: Progress, lr: float) -> None:
        pass

    def dose(self, rates: Sequence[float], momentum: float) -> float:
        return dose(self.s, rates, momentum)

    def state(self) -> dict:
        return {}

    def load(self, state: dict) -> None:
        pass


def dose(s: float, rates: Sequence[float], momentum: float) -> float:
    """How far L1 can move a gamma over a run of SGD: s * sum(lr_t) / (1 - m). Much below 1 it can prune
    nothing.
    """
    return s * sum(rates) / (1 - momentum)


def suggested_s(rates: Sequence[float], momentum: float, wanted: float = ENOUGH) -> float:
    """The s that gives the dose `wanted`, to two digits."""
    unit = dose(1.0, rates, momentum)
    return float(f"{wanted / unit:.2g}") if unit > 0 else float("nan")
