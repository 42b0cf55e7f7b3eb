"""How many weights go from each layer, so that a share of all goes and the layers lose least together.

A layer's error, after its cheapest weights have gone and the others were solved again, stays near nothing for
long and then rises steeply, each layer's at another share. What weights cost one by one does not tell where,
since those that make up for each other are gone as well. So the error is measured at LEVELS, for some filters
of each layer (as Frantar 2022, arXiv 2208.11580, does for budgets), and what goes is shared out along the
lower convex hulls of these curves, where the next weight costs least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..network.patches import Gram
from .magnitude import gone
from .resolve import on_support

LEVELS = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)  # shares of a layer
FILTERS = 32  # of a group, on which a level is tried


def errors(gram: Gram, weights: Tensor, costs: Tensor) -> tuple[float, ...]:
    """What a layer loses at each of LEVELS: |F W + b - Y|^2 over the variance of Y, mean over filters.

    Args:
        gram: of what the convolution reads and makes.
        weights, costs: (groups, width, outputs); the cheapest go first, whatever filter they are of.
    """
    outputs = weights.shape[2]
    some = torch.linspace(0, outputs - 1, min(outputs, FILTERS), device=weights.device).round().long()
    rank = torch.empty(costs.numel(), dtype=torch.long, device=costs.device)
    rank[costs.reshape(-1).argsort(stable=True)] = torch.arange(costs.numel(), device=costs.device)
    rank = rank.view_as(costs)[:, :, some]
    support = torch.cat([rank >= gone(costs.numel(), level) for level in LEVELS], 2)
    part = gram.outputs(some.repeat(len(LEVELS)))
    old = weights[:, :, some].repeat(1, 1, len(LEVELS)) * support
    solved = on_support(part, old, support)
    lost = part.errors(solved, part.offsets(solved)) / (part.centred()[2] + 1e-30)
    return tuple(lost.clamp(max=1).view(len(lost), len(LEVELS), -1).mean((0, 2)).tolist())


def allot(curves: Mapping[int, Sequence[float]], sizes: Mapping[int, int], ratio: float) -> dict[int, int]:
    """Layer -> how many of its weights go; gone(all of them, ratio) in all.

    Args:
        curves: layer -> its error at LEVELS. sizes: layer -> how many weights it has.
    """
    steps = []
    for layer, curve in curves.items():
        number = sizes[layer]
        points = [(0, 0.0), *((gone(number, level), e) for level, e in zip(LEVELS, curve, strict=True))]
        hull = _below([*points, (number, 1.0)])
        for (begin, low), (end, high) in zip(hull, hull[1:], strict=False):
            steps.append(((high - low) / (end - begin), layer, begin, end))
    left, found = gone(sum(sizes.values()), ratio), dict.fromkeys(sizes, 0)
    for _, layer, begin, end in sorted(steps):  # on a hull each step of a layer is dearer than the one before
        taken = min(left, end - begin)
        found[layer] += taken
        left -= taken
    return found


def _below(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The lower convex hull of points in order of x (Andrew 1979)."""
    hull: list[tuple[int, float]] = []
    for x, y in points:
        if hull and x == hull[-1][0]:
            continue
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) >= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return hull
