"""Sparsity on the gammas of prunable channel classes: one penalty per optimizer step.

A penalty is two calls around the optimizer's step, so that subgradients (before) and proximal steps (after) both fit.
It is called once per optimizer step, whatever the number of micro-batches and processes, on gradients that are
already unscaled: its strength depends on none of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..channels import Channels

QUINTILES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ENOUGH = 1.2  # the dose that a suggestion aims at: gammas start near 1


@dataclass(frozen=True)
class Gammas:
    """The BatchNorm scale of one layer.

    Attributes:
        layer: index of the convolution. parameter: (C,) gamma. mask: (C,) 1 where the channel may be cut, else 0.
    """

    layer: int
    parameter: nn.Parameter
    mask: Tensor


def prunable_gammas(model: nn.Module, strategy: str = "normal") -> list[Gammas]:
    """The gammas of the classes that `strategy` may cut, layer by layer."""
    channels = Channels(model.graph)
    members: dict[int, list[int]] = defaultdict(list)
    norms = model.batch_norms()
    for cls in channels.prunable(strategy):
        for layer, channel in channels.producers[cls]:
            if layer in norms:  # a class may also have members without
                members[layer].append(int(channel))
    gammas = []
    for layer in sorted(members):
        weight = norms[layer].weight
        mask = torch.zeros_like(weight, requires_grad=False)
        mask[members[layer]] = 1
        gammas.append(Gammas(layer, weight, mask))
    return gammas


class Penalty(Protocol):
    """What presses gammas towards zero."""

    def before_step(self, step: int) -> None:
        """Changes gradients: they are unscaled, averaged over processes and clipped."""

    def after_step(self, step: int, lr: float) -> None:
        """Changes gammas, after the optimizer has moved them."""


class NoPenalty:
    """Dense training."""

    def before_step(self, step: int) -> None:
        pass

    def after_step(self, step: int, lr: float) -> None:
        pass


class L1:
    """Network slimming (Liu 2017, arXiv 1708.06519): gamma.grad += s * sign(gamma)."""

    def __init__(self, gammas: Sequence[Gammas], s: float):
        self.gammas, self.s = list(gammas), s

    def before_step(self, step: int) -> None:
        for g in self.gammas:
            push = g.parameter.detach().sign() * g.mask * self.s
            if g.parameter.grad is None:
                g.parameter.grad = push
            else:
                g.parameter.grad.add_(push)

    def after_step(self, step: int, lr: float) -> None:
        pass


def dose(s: float, rates: Sequence[float], momentum: float) -> float:
    """How far L1 can move a gamma over a run of SGD: s * sum(lr_t) / (1 - m). Much below 1 it can prune nothing."""
    return s * sum(rates) / (1 - momentum)


def suggested_s(rates: Sequence[float], momentum: float, wanted: float = ENOUGH) -> float:
    """The s that gives the dose `wanted`, to two digits."""
    unit = dose(1.0, rates, momentum)
    return float(f"{wanted / unit:.2g}") if unit > 0 else float("nan")


def values(gammas: Sequence[Gammas]) -> Tensor:
    """All prunable gammas, one after the other, on the CPU."""
    if not gammas:
        return torch.zeros(0)
    return torch.cat([g.parameter.detach()[g.mask > 0].float().cpu() for g in gammas])


def quintiles(gammas: Sequence[Gammas]) -> list[float]:
    """The six borders of the five quintiles of |gamma|: least, 20%, 40%, 60%, 80%, greatest."""
    v = values(gammas).abs()
    if not len(v):
        return []
    return torch.quantile(v, torch.tensor(QUINTILES)).tolist()
