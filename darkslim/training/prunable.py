"""The gammas that a sparsity penalty presses: those of prunable channel classes, layer by layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..network.channels import Channels

QUINTILES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Gammas:
    """The BatchNorm scale of one layer; or the gates of a whole network, which are pressed alike.

    Attributes:
        layer: index of the convolution, -1 for gates. parameter: (C,) gamma. mask: (C,) 1 where the channel
            may be cut, else 0. classes: int64 (C,), the channel class of each, -1 where it may not be cut.
    """

    layer: int
    parameter: nn.Parameter
    mask: Tensor
    classes: Tensor | None = None


def prunable_gammas(model: nn.Module, strategy: str = "normal") -> list[Gammas]:
    """The gammas of the classes that `strategy` may cut, layer by layer."""
    channels = Channels(model.graph)
    members: dict[int, dict[int, int]] = defaultdict(dict)
    norms = model.batch_norms()
    for cls in channels.prunable(strategy):
        for layer, channel in channels.producers[cls]:
            if (
                layer in norms and norms[layer].weight.requires_grad
            ):  # not frozen; a class may also have members without
                members[layer][int(channel)] = int(cls)
    gammas = []
    for layer in sorted(members):
        weight = norms[layer].weight
        mask = torch.zeros_like(weight, requires_grad=False)
        mask[list(members[layer])] = 1
        classes = torch.full(weight.shape, -1, dtype=torch.int64)
        classes[list(members[layer])] = torch.tensor(list(members[layer].values()))
        gammas.append(Gammas(layer, weight, mask, classes))
    return gammas


def pressed(model: nn.Module, strategy: str = "normal") -> list[Gammas]:
    """What decides about channels: the gates where the network has them, else the gammas."""
    gates = model.gates
    if gates is None:
        return prunable_gammas(model, strategy)
    return [Gammas(-1, gates.value, torch.ones_like(gates.value, requires_grad=False), gates.classes)]


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
