"""Darknet's optimizer and learning rate.

SGD with momentum; decay on the weights of convolutions (and connected layers) only, never on gammas, betas or
biases. Learning rate: lr * (iteration / burn_in)^power up to burn_in, then the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..base.errors import CfgError
from ..network import schema
from ..network.cfg import Section

FLOOR = 0.01  # the cosine ends at this fraction of the learning rate
FEW = 2000  # optimizer steps below which a run is short, see docs/training.md


def make_optimizer(
    model: nn.Module, lr: float, momentum: float, decay: float, still: Sequence[nn.Parameter] = ()
) -> torch.optim.SGD:
    """SGD with `decay` on every parameter of two or more dimensions and none on the others.

    Args:
        still: parameters without momentum, of one dimension.
    """
    apart = {id(p) for p in still}
    weights = [p for p in model.parameters() if p.ndim > 1 and p.requires_grad]
    others = [p for p in model.parameters() if p.ndim <= 1 and p.requires_grad and id(p) not in apart]
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    groups.append({"params": list(still), "weight_decay": 0.0, "momentum": 0.0})
    return torch.optim.SGD([g for g in groups if g["params"]], lr=lr, momentum=momentum, foreach=True)


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each iteration of a run.

    Attributes:
        lr: the learning rate after burn-in.
        iterations: optimizer steps of the whole run.
        burn_in: steps over which the learning rate rises as (step / burn_in)^power.
        kind: "cosine" (from lr to FLOOR * lr) or "steps".
        steps, scales: for "steps": from the fraction steps[i] of the run on, lr is multiplied by scales[i]
            too.
    """

    lr: float
    iterations: int
    burn_in: int = 0
    power: float = 4.0
    kind: str = "cosine"
    steps: Sequence[float] = ()
    scales: Sequence[float] = ()

    def __call__(self, iteration: int) -> float:
        """The learning rate of step `iteration`, which counts from 0."""
        done = iteration + 1  # Darknet counts the batch that it is about to apply
        if done < self.burn_in:
            return self.lr * (done / self.burn_in) ** self.power
        if self.kind == "steps":
            passed = (
                scale
                for step, scale in zip(self.steps, self.scales, strict=True)
                if done >= step * self.iterations
            )
            return self.lr * math.prod(passed)
        rest = max(1, self.iterations - self.burn_in)
        turn = min(1.0, max(0.0, (done - self.burn_in) / rest))
        return self.lr * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * turn)))

    def all(self) -> list[float]:
        """The learning rates of the whole run."""
        return [self(i) for i in range(self.iterations)]


def make_schedule(
    net, iterations: int, lr: float | None, kind: str, trained: bool = False
) -> tuple[Schedule, list[str]]:
    """The schedule that the typed values of `[net]` ask for, fitted to a run of `iterations` steps.

    A burn-in longer than a tenth of the run becomes that tenth. Steps are stretched: steps / max_batches is
    what counts. Trained weights lose at the cfg's learning rate first what many steps give back: a run of
    fewer than FEW gets the share of it that it has of these steps.

    Args:
        lr: the learning rate, None for the cfg's.
        trained: the run starts from trained weights.

    Returns:
        The schedule, and one sentence for everything that was changed to fit.
    """
    said = []
    burn_in = int(net.get("burn_in") or 0)
    if burn_in > iterations // 10:
        said.append(
            f"burn-in: a tenth of the run, {iterations // 10} steps (the cfg's {burn_in} suit a longer one)"
        )
        burn_in = iterations // 10
    rate = float(lr if lr is not None else net.get("learning_rate") or 0.001)
    if lr is None and trained and iterations < FEW:
        asked, rate = rate, rate * iterations / FEW
        said.append(
            f"learning rate: {rate:.3g} of the cfg's {asked:g}, at which trained weights first lose what "
            f"some {FEW:,} steps give back, and this run has {iterations:,}; -lr takes another"
        )
    steps, scales = numbers(net.get("steps")), numbers(net.get("scales"))
    whole = net.get("max_batches") or (max(steps) * 1.1 if steps else 1)
    if kind == "steps" and not steps:
        said.append("steps: the cfg gives no steps; the learning rate stays constant")
        scales = ()
    return Schedule(
        lr=rate,
        iterations=iterations,
        burn_in=burn_in,
        power=float(net.get("power") or 4),
        kind=kind,
        steps=tuple(s / whole for s in steps),
        scales=scales,
    ), said


def check_steps(net: Section) -> None:
    """Every step of `[net]` needs its scale.

    Raises:
        CfgError: they are not equally many, with the line of the second list.
    """
    values = schema.values(net)
    steps, scales = len(values["steps"]), len(values["scales"])
    if steps != scales:
        raise CfgError(
            net.place_of("scales" if net.get("scales") is not None else "steps"),
            f"{scales} scales for {steps} steps",
            "one scale a step",
            "make the two lists equally long, or use --schedule cosine",
        )


def numbers(value) -> tuple[float, ...]:
    """A list of numbers, given as such or as "1,2,3"."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(float(v) for v in value.split(",") if v.strip())
    return tuple(float(v) for v in value)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
