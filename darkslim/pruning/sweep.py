"""Trying many ratios: `sweep` makes a compact network for each, `deepest` finds the largest that is still
good enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from ..network.darknet import Darknet
from .plan import PrunePlan, plan
from .surgery import apply

STEP = 0.01  # of the ratio: `deepest` does not tell finer ratios apart


def sweep(model, percents: Sequence[float], **request) -> Iterator[tuple[PrunePlan, Darknet]]:
    """For each share of the prunable channels, ascending: the plan and the compact network. `model` is only
    read.

    A ratio that cuts no more than the one before, as where the floors allow no more, is left out.

    Args:
        percents: shares, 0 to 1.
        request: what `plan` takes beside `percent`.

    Raises:
        RequestError, WeightsError: as `plan` does.
    """
    cut = -1
    for percent in sorted(percents):
        decision = plan(model, percent, **request)
        if decision.cut > cut:
            cut = decision.cut
            yield decision, apply(model, decision, request.get("fold", "exact"))


def deepest(good: Callable[[float], bool], low: float = 0.0, high: float = 1.0) -> float:
    """The largest ratio in [low, high] that is good, by bisection to `STEP`; `low` itself is taken to be
    good.

    Accuracy falls with the ratio on the whole, not at every step: what is found is good, and something a
    little above it is not.
    """

    def ratio(step: int) -> float:
        return round(low + step * STEP, 6)  # what is judged is what is returned

    steps = math.floor((high - low) / STEP + 1e-6)
    first, last = 0, steps + 1  # first is good, last is not
    while last - first > 1:
        middle = (first + last) // 2
        if good(ratio(middle)):
            first = middle
        else:
            last = middle
    return ratio(first)
