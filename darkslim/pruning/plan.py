"""The decision: which channels stay. `plan` makes it, `PrunePlan` holds it, `masked` shows what it means.

A global threshold over the classes that the strategy may cut (network slimming), then rules that keep the
network whole: a floor per layer, equal slices where a layer is sliced by count, widths rounded up to a
multiple. The rules only ever take channels back, so the threshold is moved until the request holds *after*
them, as far as they allow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from ..channels import Channels
from ..errors import RequestError
from . import carriers, importance
from .parts import batch_norm, twin

FOLDS = ("exact", "interior", "none")
STRATEGIES = ("normal",)
_EPS = 1e-9  # 0.1 * 30 is 3.0000000000000004: no reason to keep a fourth channel


@dataclass(frozen=True)
class PrunePlan:
    """What to keep of every convolution. Frozen, arrays included.

    Attributes:
        keep: layer -> bool array (filters,), for every convolution: what the masked network keeps. The compact
            network may keep a carrier more (see darkslim/pruning/carriers.py).
        strategy, percent, layer_keep, round_to: the request.
        prunable: how many channel classes the strategy may cut.
        requested: how many classes `percent` asks to cut.
        cut: how many are cut after the floors and the rounding.
        threshold: the largest score among the cut classes (0.0 if none).
        protected: (layer, reason) of what the strategy may not cut.
        scores: the scores of all prunable classes, ascending (prunable,).
    """

    keep: Mapping[int, np.ndarray]
    strategy: str
    percent: float
    layer_keep: float
    round_to: int
    prunable: int
    requested: int
    cut: int
    threshold: float
    protected: tuple[tuple[int, str], ...]
    scores: np.ndarray


def plan(model, percent: float = 0.85, strategy: str = "normal", layer_keep: float = 0.01, round_to: int = 1,
         fold: str = "exact") -> PrunePlan:
    """Decides which channels stay, by mean |gamma| over all prunable classes together.

    Args:
        model: a Darknet. It is only read.
        percent: the share of prunable classes to cut, 0 to 1: floor(percent * n) of them. Ties go by score, layer, channel.
        strategy: `normal` cuts classes that one convolution makes.
        layer_keep: every convolution keeps at least max(1, ceil(layer_keep * filters)) channels.
        round_to: widths in the compact network are multiples of this, or the full width.
        fold: how the plan will be applied; with `exact`, rounding makes room for the carriers.

    Raises:
        RequestError: a value out of range, or nothing is prunable.
        WeightsError: a gamma that is no finite number.
    """
    _check_request(percent, strategy, layer_keep, round_to, fold)
    channels = Channels(model.graph)
    classes = channels.prunable(strategy)
    protected = tuple(channels.protected_layers(strategy))
    if not len(classes):
        why = f"; layer {protected[0][0]} {protected[0][1]}" if protected else ""
        raise RequestError(model.cfg.path, f"nothing can be pruned by strategy {strategy}{why}",
                           "a convolution with batch_normalize=1 that feeds no head and is not joined with others")
    scores = importance.gamma(model, channels, classes)
    rules = _Rules(channels, classes[np.lexsort((classes, scores))], layer_keep, round_to)
    requested = math.floor(percent * len(classes) + _EPS)
    cut = _settle(model, rules, requested, fold == "exact" and round_to > 1)
    keep = rules.keep_of(cut)
    for kept in keep.values():
        kept.setflags(write=False)
    ascending = np.sort(scores)
    ascending.setflags(write=False)
    gone = scores[cut[classes]]
    return PrunePlan(MappingProxyType(keep), strategy, float(percent), float(layer_keep), int(round_to), len(classes), requested,
                     len(gone), float(gone.max()) if len(gone) else 0.0, protected, ascending)


def masked(model, plan: PrunePlan):
    """A copy of `model` with the gammas of the cut channels at 0 and everything else as it was.

    Raises:
        RequestError: the plan was made for another network.
    """
    check(plan, Channels(model.graph))
    return mask(twin(model), plan.keep)


def mask(model, keep: Mapping[int, np.ndarray]):
    """Sets the gammas of the cut channels of `model` to 0, in place, and returns it."""
    with torch.no_grad():
        for layer, kept in keep.items():
            if not kept.all():
                gamma = batch_norm(model, layer).weight
                gamma[torch.from_numpy(~kept).to(gamma.device)] = 0
    return model


def check(plan: PrunePlan, channels: Channels) -> None:
    """Refuses a plan that does not fit the network: other layers or widths, classes that are split, layers left empty.

    Raises:
        RequestError: with the layer.
    """
    nodes = channels.graph.nodes
    if sorted(plan.keep) != sorted(channels.convolutions):
        raise RequestError("plan", f"is for convolutions {sorted(plan.keep)[:8]}...", f"{list(channels.convolutions)[:8]}...",
                           "apply it to the network that it was made for")
    kept = np.ones(channels.count, dtype=bool)
    for layer, keep in plan.keep.items():
        if keep.dtype != bool or keep.shape != (nodes[layer].shape[0],):
            raise RequestError(f"plan, layer {layer}", f"keep is {keep.dtype} {keep.shape}", f"bool ({nodes[layer].shape[0]},)")
        kept[channels.ids[layer][~keep]] = False
        if not keep.all() and not nodes[layer].opts["batch_normalize"]:
            raise RequestError(f"plan, layer {layer}", "cuts a convolution without batch_normalize", "only what has a gamma")
    for layer, keep in plan.keep.items():
        split = np.flatnonzero(kept[channels.ids[layer]] != keep)
        if len(split):
            raise RequestError(f"plan, layer {layer}", f"channel {split[0]} is kept, but a channel that it is joined with is cut",
                               "classes as a whole")
        bad = next((c for c in channels.ids[layer][~keep].tolist() if c in channels.protected), None)
        if bad is not None:
            raise RequestError(f"plan, layer {layer}", f"cuts a channel that {channels.protected[bad]}")
    for node in nodes:
        if not kept[channels.ids[node.index]].any():
            raise RequestError(f"plan, layer {node.index}", "is left without a channel", "at least one")
    for layer, groups in channels.slices:
        if len(set(kept[channels.of(layer)].reshape(groups, -1).sum(axis=1).tolist())) > 1:
            raise RequestError(f"plan, layer {layer}", f"is sliced in {groups}, but its slices keep different numbers of channels")


def _check_request(percent, strategy, layer_keep, round_to, fold) -> None:
    if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 <= percent <= 1:
        raise RequestError("percent", repr(percent), "a number from 0 to 1")
    if not isinstance(layer_keep, (int, float)) or not 0 <= layer_keep <= 1:
        raise RequestError("layer_keep", repr(layer_keep), "a number from 0 to 1")
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise RequestError("round_to", repr(round_to), "a whole number of at least 1")
    if strategy not in STRATEGIES:
        raise RequestError("strategy", repr(strategy), "one of " + ", ".join(STRATEGIES))
    if fold not in FOLDS:
        raise RequestError("fold", repr(fold), "one of " + ", ".join(FOLDS))


def _settle(model, rules: _Rules, requested: int, carried: bool) -> np.ndarray:
    """The cut, bool (classes,), that meets the request after all rules, carriers counted where they widen a layer."""
    cut = rules.meet(requested)
    for _ in range(4 if carried else 0):
        extra = _widths(model, rules.channels, rules.keep_of(cut))
        if extra == rules.extra:
            return cut
        rules.extra = extra
        cut = rules.meet(requested)
    while carried:  # the carriers keep moving: from here channels are only taken back, so this ends
        rules.extra = _widths(model, rules.channels, rules.keep_of(cut))
        wider = rules.applied(cut)
        if (wider == cut).all():
            break
        cut = wider
    return cut


def _widths(model, channels: Channels, keep) -> dict[int, int]:
    """Convolution -> how many of its cut channels stay as carriers."""
    widths: dict[int, int] = {}
    for carrier in carriers.fold(model, channels, keep).carriers:
        for layer, _ in carrier.betas:
            widths[layer] = widths.get(layer, 0) + 1
    return widths


class _Rules:
    """What keeps the network whole. All rules only take cut classes back, the best scored first.

    Attributes:
        order: the prunable classes, worst first.
        extra: convolution -> channels that will be kept beside the plan (carriers), for the rounding.
    """

    def __init__(self, channels: Channels, order: np.ndarray, layer_keep: float, round_to: int):
        self.channels, self.order, self.round_to = channels, order, round_to
        self.extra: dict[int, int] = {}
        self.rank = np.full(channels.count, -1)
        self.rank[order] = np.arange(len(order))
        may = self.rank >= 0
        self.layers = [layer for layer in channels.convolutions if may[channels.ids[layer]].any()]
        self.floors = {layer: max(1, math.ceil(layer_keep * len(channels.ids[layer]) - _EPS)) for layer in self.layers}
        touched = [node.index for node in channels.graph.nodes if may[channels.ids[node.index]].any()]
        self.others = [layer for layer in touched if layer not in self.floors]
        self.slices = sorted({(layer, groups) for layer, groups in channels.slices if may[channels.of(layer)].any()})

    def keep_of(self, cut: np.ndarray) -> dict[int, np.ndarray]:
        """Convolution -> bool (filters,) of what a cut leaves."""
        return {layer: ~cut[self.channels.ids[layer]] for layer in self.channels.convolutions}

    def meet(self, requested: int) -> np.ndarray:
        """The mildest threshold that cuts at least `requested` classes after the rules, or as many as they allow."""
        low, high = requested, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if self._first(middle).sum() >= requested:
                high = middle
            else:
                low = middle + 1
        cut = self._first(low)
        return cut if cut.sum() >= requested else self._mildest(int(cut.sum()), requested)

    def _mildest(self, best: int, low: int) -> np.ndarray:
        """The request is out of reach: the smallest threshold that still cuts as many as can be."""
        high = len(self.order)
        while low < high:
            middle = (low + high) // 2
            if self._first(middle).sum() >= best:
                high = middle
            else:
                low = middle + 1
        return self._first(low)

    def _first(self, count: int) -> np.ndarray:
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
                    extra = self.extra.get(layer, 0)
                    wide = -(-(int((~cut[ids]).sum()) + extra) // self.round_to) * self.round_to
                    self._raise(cut, ids, wide - extra if wide <= len(ids) else len(ids))
            for layer in self.others:
                self._raise(cut, self.channels.ids[layer], 1)
            for layer, groups in self.slices:
                parts = self.channels.of(layer).reshape(groups, -1)
                most = max(int((~cut[part]).sum()) for part in parts)
                for part in parts:
                    self._raise(cut, part, max(most, 1))
        return cut

    def _raise(self, cut: np.ndarray, ids: np.ndarray, least: int) -> None:
        """Takes back the best scored cut classes among `ids` until at least `least` of its channels are kept."""
        missing = least - int((~cut[ids]).sum())
        if missing <= 0:
            return
        gone, sizes = np.unique(ids[cut[ids]], return_counts=True)
        best = np.argsort(-self.rank[gone], kind="stable")
        reached = np.cumsum(sizes[best])
        cut[gone[best[: int(np.searchsorted(reached, missing)) + 1]]] = False
