"""When and where a penalty presses: schedules of its strength over a run and over the gammas.

A schedule is a function (share of the run that is done, |gamma| of all prunable channels (n,)) -> factors of
the strength: a number, or (n,). To add one, give it a row in `SCHEDULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .progress import Progress
from .prunable import Gammas

HALF = 0.5  # of the run, from which on decays hold
DECAYED = 0.01  # what is left of the strength then
LARGEST = 0.15  # of the gammas, which `local-decay` spares


def _constant(done: float, sizes: Tensor) -> Tensor | float:
    return 1.0


def _global_decay(done: float, sizes: Tensor) -> Tensor | float:
    return DECAYED if done >= HALF else 1.0


def _local_decay(done: float, sizes: Tensor) -> Tensor | float:
    if done < HALF:
        return 1.0
    factors = torch.ones_like(sizes)
    factors[sizes.argsort(stable=True)[len(sizes) - round(LARGEST * len(sizes)) :]] = DECAYED
    return factors


def _lower_half(done: float, sizes: Tensor) -> Tensor | float:
    factors = torch.zeros_like(sizes)
    factors[sizes.argsort(stable=True)[: (len(sizes) + 1) // 2]] = 1.0
    return factors


SCHEDULES: dict[str, Callable[[float, Tensor], Tensor | float]] = {
    "constant": _constant,
    "global-decay": _global_decay,
    "local-decay": _local_decay,
    "lower-half": _lower_half,
}


class Pressed:
    """The gammas that a penalty acts on, and how strongly now.

    Args:
        gammas: layer by layer. schedule: a name of `SCHEDULES`.
    """

    def __init__(self, gammas: Sequence[Gammas], schedule: str = "constant"):
        self.gammas, self.schedule = list(gammas), SCHEDULES[schedule]
        self.where = [g.mask.nonzero()[:, 0] for g in self.gammas]

    @property
    def channels(self) -> int:
        """How many they are."""
        return sum(len(where) for where in self.where)

    def values(self) -> Tensor:
        """All of them, one after the other (n,)."""
        if not self.gammas:
            return torch.zeros(0)
        parts = zip(self.gammas, self.where, strict=True)
        return torch.cat([g.parameter.detach()[where].float() for g, where in parts])

    def classes(self) -> Tensor:
        """The class of each (n,)."""
        parts = zip(self.gammas, self.where, strict=True)
        return torch.cat([g.classes.to(where.device)[where] for g, where in parts])

    def factors(self, progress: Progress, values: Tensor) -> Tensor:
        """What the strength is multiplied by for each of them (n,), at this moment of the run."""
        return torch.ones_like(values) * self.schedule(progress.share, values.abs())

    def add_to_gradients(self, push: Tensor) -> None:
        """Adds (n,) to the gradients of the gammas."""
        for g, where, part in self._parts(push):
            if g.parameter.grad is None:
                g.parameter.grad = torch.zeros_like(g.parameter)
            g.parameter.grad[where] += part.to(g.parameter.grad.dtype)

    def set(self, values: Tensor) -> None:
        """Writes (n,) into the gammas."""
        with torch.no_grad():
            for g, where, part in self._parts(values):
                g.parameter[where] = part.to(g.parameter.dtype)

    def _parts(self, values: Tensor):
        sizes = [len(where) for where in self.where]
        return zip(self.gammas, self.where, values.split(sizes), strict=True) if self.gammas else ()
