"""What keeps a network whole while its channels go: floors, equal slices, widths that are multiples.

All rules only take cut classes back, the best scored first, so a request is met by cutting deeper elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ..network.channels import Channels

_EPS = 1e-9  # 0.07 * 100 is 7.000000000000001: no reason to keep an eighth channel


class Rules:
    """The rules of one request.

    Attributes:
        order: the prunable classes, worst first.
        floors: convolution -> channels that it keeps at least.
        sizes: int (classes,): how many channels of convolutions make each class.
        total: the channels of all prunable classes together.
        extra: convolution -> channels that will be kept beside the plan (carriers), for the rounding.
    """

    def __init__(
        self,
        channels: Channels,
        order: np.ndarray,
        layer_keep: float,
        round_to: int,
        floors: Mapping[int, float] | None = None,
    ):
        self.channels, self.order, self.round_to = channels, order, round_to
        self.extra: dict[int, int] = {}
        self.rank = np.full(channels.count, -1)
        self.rank[order] = np.arange(len(order))
        may = self.rank >= 0
        self.sizes = np.zeros(channels.count, dtype=np.int64)
        for layer in channels.convolutions:
            np.add.at(self.sizes, channels.ids[layer], 1)
        self.total = int(self.sizes[order].sum())
        self.layers = [layer for layer in channels.convolutions if may[channels.ids[layer]].any()]
        least = floors or {}
        self.floors = {
            layer: max(1, math.ceil(max(layer_keep, least.get(layer, 0)) * len(channels.ids[layer]) - _EPS))
            for layer in self.layers
        }
        touched = [node.index for node in channels.graph.nodes if may[channels.ids[node.index]].any()]
        self.others = [layer for layer in touched if layer not in self.floors]
        self.slices = sorted(
            {(layer, groups) for layer, groups in channels.slices if may[channels.of(layer)].any()}
        )

    def keep_of(self, cut: np.ndarray) -> dict[int, np.ndarray]:
        """Convolution -> bool (filters,) of what a cut leaves."""
        return {layer: ~cut[self.channels.ids[layer]] for layer in self.channels.convolutions}

    def amount(self, cut: np.ndarray) -> int:
        """How many channels of convolutions a cut takes."""
        return int(self.sizes[cut].sum())

    def requested(self, percent: float) -> int:
        """The channels that a share of all prunable ones amounts to."""
        return math.floor(percent * self.total + _EPS)

    def meet(self, requested: int) -> np.ndarray:
        """The mildest threshold that cuts at least `requested` channels after the rules, or as many as they
        allow.
        """
        count = self.search(lambda cut: self.amount(cut) >= requested)
        cut = self.first(count)
        if self.amount(cut) >= requested:
            return cut
        best = self.amount(cut)
        return self.first(self.search(lambda cut: self.amount(cut) >= best))

    def search(self, enough: Callable[[np.ndarray], bool]) -> int:
        """The smallest number of classes, worst first, whose cut is enough after the rules; all of them if
        none is.
        """
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if enough(self.first(middle)):
                high = middle
            else:
                low = middle + 1
        return low

    def first(self, count: int) -> np.ndarray:
        """The cut of the `count` worst classes after the rules: bool (classes,)."""
        cut = np.zeros(self.channels.count, dtype=bool)
        cut[self.order[:count]] = True
        return self.applied(cut)

    def applied(self, cut: np.ndarray) -> np.ndarray:
        """`cut` after the rules, repeated until none of them takes anything back."""
        cut = cut.copy()
        before = None
        while before is None or (cut != before).any():
            before = cut.copy()
            for layer in self.layers:
                ids = self.channels.ids[layer]
                self._raise(cut, ids, self.floors[layer])
                if self.round_to > 1:
                    self._raise(cut, ids, self.rounded(layer, int((~cut[ids]).sum())))
            for layer in self.others:
                self._raise(cut, self.channels.ids[layer], 1)
            for layer, groups in self.slices:
                parts = self.channels.of(layer).reshape(groups, -1)
                most = max(int((~cut[part]).sum()) for part in parts)
                for part in parts:
                    self._raise(cut, part, max(most, 1))
        return cut

    def rounded(self, layer: int, kept: int) -> int:
        """How many channels a convolution that keeps `kept` must keep, so that with its carriers it is a
        multiple, or whole.
        """
        width, extra = len(self.channels.ids[layer]), self.extra.get(layer, 0)
        wide = -(-(kept + extra) // self.round_to) * self.round_to
        return wide - extra if wide <= width else width

    def _raise(self, cut: np.ndarray, ids: np.ndarray, least: int) -> None:
        """Takes back the best scored cut classes among `ids` until at least `least` of its channels are
        kept.
        """
        missing = least - int((~cut[ids]).sum())
        if missing <= 0:
            return
        gone, sizes = np.unique(ids[cut[ids]], return_counts=True)
        best = np.argsort(-self.rank[gone], kind="stable")
        reached = np.cumsum(sizes[best])
        cut[gone[best[: int(np.searchsorted(reached, missing)) + 1]]] = False
