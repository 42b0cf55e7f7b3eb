"""An order of channels by what they are worth for what they cost, for plans with a budget.

A threshold on scores asks what a channel is worth and not what it costs: a channel of an early layer may
cost a hundred times the multiply-adds of a late one. Filling a budget with the most importance is a knapsack
problem, and the greedy order by importance over cost solves it but for the last item (Dantzig 1957); with
latencies for costs that is the plan of HALP (Shen et al. 2022, arXiv 2110.10811). Channels of a layer go in
blocks of as many as widths are rounded to, since less than a block saves no time, the weakest first.

The cost of a channel is the mean over half of those of its kind, with the rest of the network whole: widths
of neighbours shrink about alike, so that the order changes little while the network does.
"""

from __future__ import annotations

import numpy as np

from ..network.channels import Channels
from .budget import Cost


def order_by_worth(
    channels: Channels, classes: np.ndarray, scores: np.ndarray, cost: Cost, round_to: int = 1
) -> np.ndarray:
    """The classes, those first that are worth least for what they cost.

    Args:
        classes: int (n,), the prunable ones. scores: float (n,), how much each of their channels matters.
        cost: of the network from the classes that stay. round_to: channels of a block.

    Returns:
        int (n,), a permutation of `classes`; within a kind ascending by score.
    """
    members: list[list[int]] = [[] for _ in range(channels.count)]
    for layer in channels.convolutions:
        for c in channels.ids[layer].tolist():
            members[c].append(layer)
    kinds: dict[tuple[int, ...], list[int]] = {}
    for place, c in enumerate(classes.tolist()):
        kinds.setdefault(tuple(members[c]), []).append(place)
    whole = np.ones(channels.count, dtype=bool)
    full = cost(whole)
    keys = np.empty((len(classes), 3))
    for number, places in enumerate(kinds.values()):
        found = np.asarray(places)
        found = found[np.argsort(scores[found], kind="stable")]
        without = whole.copy()
        half = found[: max(1, len(found) // 2)]
        without[classes[half]] = False
        price = max((full - cost(without)) / len(half), 1e-30)
        starts = np.arange(0, len(found), round_to)
        sums = np.add.reduceat(scores[found], starts) * len(set(members[classes[found[0]]]))
        lengths = np.diff(np.append(starts, len(found)))
        worth = np.maximum.accumulate(sums / (lengths * price))  # a block never goes before a weaker one
        keys[found] = np.column_stack(
            (np.repeat(worth, lengths), np.full(len(found), number), np.arange(len(found)))
        )
    return classes[np.lexsort(keys.T[::-1])]
