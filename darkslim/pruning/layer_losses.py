"""What cutting one layer alone costs (Li et al. 2017, arXiv 1608.08710, section 3.2): for every layer and
some shares of its channels, the network with the weakest of them at 0 and nothing else changed.

Convolutions that a strategy cuts together, such as those that shortcuts join, are one layer here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.twins import twin
from . import policy
from .importance import Context
from .plan import mask
from .rules import Rules

SHARES = (0.125, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class LayerLoss:
    """A layer that was cut alone.

    Attributes:
        layer: its number, the first of those that are cut together. layers: all of these.
        channels: of the layer. share: of them that was asked for. cut: how many were cut.
        rise: of the loss, as a share of what it was before; 0: none.
    """

    layer: int
    layers: tuple[int, ...]
    channels: int
    share: float
    cut: int
    rise: float


def layer_losses(
    model: Darknet,
    loss: Callable[[Darknet], float],
    shares: Sequence[float] = SHARES,
    *,
    strategy: str = "normal",
    score: str = "gamma",
    context: Context | None = None,
    progress: Callable[..., Iterable] = lambda items, **_: items,
) -> list[LayerLoss]:
    """One row for every layer and share, layer by layer, shares ascending. `model` is only read.

    Args:
        loss: of a network on some pictures; smaller is better.
        shares: of a layer's channels, 0 to 1; the last channel always stays.
        strategy, score, context: what may be cut, and which channels are weakest, as in `plan`.
    """
    channels = Channels(model.graph)
    classes = channels.prunable(strategy)
    scores = policy.class_scores(model, channels, classes, strategy, score, context)
    order = classes[np.lexsort((classes, scores))]
    rules = Rules(channels, order, 0.0, 1)
    before = max(loss(model), 1e-12)
    jobs = [(layers, share) for layers in _together(channels, rules) for share in sorted(shares)]
    rows: list[LayerLoss] = []
    for layers, share in progress(jobs, total=len(jobs), desc="cutting layers alone"):
        ids = channels.ids[layers[0]]
        may = order[np.isin(order, ids)]
        wanted = np.zeros(channels.count, dtype=bool)
        wanted[may[: int(share * len(ids) + 1e-9)]] = True
        cut = rules.applied(wanted)
        gone = int(cut[ids].sum())
        last = rows[-1] if rows and rows[-1].layers == layers else None
        if last is not None and last.cut == gone:
            rise = last.rise
        else:
            rise = loss(mask(twin(model), rules.keep_of(cut))) / before - 1 if gone else 0.0
        rows.append(LayerLoss(layers[0], layers, len(ids), share, gone, rise))
    return rows


def floors(rows: Sequence[LayerLoss], allowed: float) -> dict[int, float]:
    """Layer -> the share of its channels that it must keep so that cutting it alone, by what was tried,
    raises the loss by at most `allowed`. Between two shares the loss is taken to rise in a straight line.
    """
    found: dict[int, float] = {}
    for layers in dict.fromkeys(row.layers for row in rows):
        share, rise = 0.0, 0.0  # of the last cut that costs no more
        for row in (row for row in rows if row.layers == layers):
            real = row.cut / row.channels
            if row.rise > allowed:
                part = (allowed - rise) / (row.rise - rise) if row.rise > rise else 0.0
                share += (real - share) * max(0.0, part)
                break
            share, rise = real, row.rise
        found |= dict.fromkeys(layers, 1 - share)
    return found


def _together(channels: Channels, rules: Rules) -> list[tuple[int, ...]]:
    """Layers that may be cut, those of the same classes side by side."""
    found: dict[bytes, list[int]] = {}
    for layer in rules.layers:
        found.setdefault(np.sort(channels.ids[layer]).tobytes(), []).append(layer)
    return [tuple(layers) for layers in found.values()]
