"""Budgets: the cut that leaves a given number of parameters, MACs or seconds, after all rules and with the
carriers.

The ranking stays what the score says; the threshold is moved until the cost of the compact network is nearest
to the target. Where steps of the threshold are coarse (rounding, long shortcut chains), single layers are
then narrowed by their weakest channels as long as that comes nearer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..base.errors import RequestError
from ..network.channels import Channels
from ..network.graph import Graph
from .rules import Rules
from .widths import Counter, compact_graph

KINDS = ("params", "macs", "latency")
NEAR = 0.02  # a target counts as met within this share of it
_CLOSE = 0.005  # a share below which coming nearer is not worth looking for

Cost = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Target:
    """What the compact network may cost.

    Attributes:
        kind: `params`, `macs` or `latency` (one picture, seconds).
        value: a share of what the network costs now, or the cost itself if `absolute`.
        seconds_of: for `latency`: (Graph) -> seconds, such as `LatencyTable.seconds`.
    """

    kind: str
    value: float
    absolute: bool = False
    seconds_of: Callable[[Graph], float] | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise RequestError("target", repr(self.kind), "one of " + ", ".join(KINDS))
        number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if not number or not 0 < self.value < float("inf") or (not self.absolute and self.value > 1):
            raise RequestError(f"target {self.kind}", repr(self.value), "above 0, and at most 1 for a share")
        if self.kind == "latency" and self.seconds_of is None:
            raise RequestError(
                "target latency",
                "nothing to estimate seconds with",
                "seconds_of, such as LatencyTable.seconds",
            )

    def cost(self, channels: Channels) -> Cost:
        """The function from the classes that stay, bool (classes,), to the cost."""
        if self.kind == "latency":
            return lambda stays: self.seconds_of(compact_graph(channels, stays))
        counter = Counter(channels)
        return lambda stays: float(counter(stays)[KINDS.index(self.kind)])


def reach(rules: Rules, cost: Cost, wanted: float, carried: np.ndarray, refine: bool = True) -> np.ndarray:
    """The threshold whose cost is nearest to `wanted`, or single layers narrowed from there; within `NEAR`,
    one that is not above it.

    Args:
        carried: bool (classes,): classes that stay as carriers although they are cut.
        refine: narrow single layers where thresholds are too coarse; not worth it for a cost that is only
            estimated.

    Returns:
        bool (classes,).
    """

    def price(cut: np.ndarray) -> float:
        return cost(~cut | carried)

    nothing = np.zeros(rules.channels.count, dtype=bool)
    if price(nothing) <= wanted:
        return nothing
    count = rules.search(lambda cut: price(cut) <= wanted)
    best = _better(wanted, price, *(rules.first(n) for n in {count, max(count - 1, 0)}))
    if refine and abs(price(best) - wanted) > _CLOSE * wanted:
        best = _better(wanted, price, best, _narrowed(rules, price, wanted, rules.first(max(count - 1, 0))))
    return best


def _better(wanted: float, price: Cost, *cuts: np.ndarray) -> np.ndarray:
    def worth(cut: np.ndarray) -> tuple[bool, bool, float]:
        value = price(cut)
        near = abs(value - wanted) <= NEAR * wanted
        return not near, near and value > wanted, abs(value - wanted)

    return min(cuts, key=worth)


def _narrowed(rules: Rules, price: Cost, wanted: float, cut: np.ndarray, most: int = 64) -> np.ndarray:
    """From a cut that is too mild: single layers lose their weakest channels while the cost stays above and
    comes nearer.
    """
    here = price(cut)
    for _ in range(most):
        tried = [
            (price(narrow), narrow)
            for layer in rules.layers
            if (narrow := _one_less(rules, layer, cut)) is not None
        ]
        fitting = [t for t in tried if wanted <= t[0] < here]
        if not fitting:
            return min([(here, cut), *tried], key=lambda t: abs(t[0] - wanted))[1]
        here, cut = min(fitting, key=lambda t: t[0])
    return cut


def _one_less(rules: Rules, layer: int, cut: np.ndarray) -> np.ndarray | None:
    """`cut` with the weakest kept channels of one layer gone as well, as many as rounding asks for; None if
    rules forbid it.
    """
    ids = rules.channels.ids[layer]
    kept = np.unique(ids[~cut[ids] & (rules.rank[ids] >= 0)])
    kept = kept[np.argsort(rules.rank[kept])]
    for count in range(1, min(len(kept), rules.round_to) + 1):
        deeper = cut.copy()
        deeper[kept[:count]] = True
        deeper = rules.applied(deeper)
        if rules.amount(deeper) > rules.amount(cut):
            return deeper
    return None


def amount(kind: str, value: float) -> str:
    """A budget of a kind (`params`, `macs`, `latency` in seconds) as one reads it: `1,676 parameters`,
    `3.2G MACs`, `20 ms`.
    """
    if kind == "params":
        return f"{value:,.0f} parameters"
    if kind == "latency":
        return f"{value:,.4g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
    factor, unit = next(((f, u) for f, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= f), (1.0, ""))
    return f"{value / factor:,.4g}{unit} MACs"
