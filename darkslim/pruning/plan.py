"""The decision: which channels stay. `plan` makes it, `PrunePlan` holds it, `masked` shows what it means.

A score for each class that the strategy may cut (policy.py), a threshold over all of them together, and rules
that keep the network whole (rules.py). The rules only ever take channels back, so the threshold is moved
until the request, a share of the channels or a budget (budget.py), holds *after* them, as far as they allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from ..base.errors import RequestError
from ..network.channels import Channels
from ..network.twins import twin
from . import budget, carriers, policy
from .importance import Context
from .knapsack import order_by_worth
from .parts import batch_norm, convolution
from .rules import Rules
from .valley import valley

FOLDS = ("exact", "interior", "none")
AUTO = "auto"  # of percent


@dataclass(frozen=True)
class PrunePlan:
    """What to keep of every convolution. Frozen, arrays included.

    Attributes:
        keep: layer -> bool array (filters,), for every convolution: what the masked network keeps. The
            compact network may keep a carrier more (see darkslim/pruning/carriers.py).
        strategy, score, layer_keep, round_to: the request.
        percent: the share of the prunable channels that was asked for; with a target, the share that is cut.
        prunable: how many channels of convolutions the strategy may cut.
        requested: how many of them `percent` asks to cut.
        cut: how many are cut after the floors and the rounding.
        threshold: the largest score among the cut classes (0.0 if none).
        protected: (layer, reason) of what the strategy may not cut.
        scores: the scores of all prunable classes, ascending.
        gammas: |gamma| of all prunable channels as the strategy sees them (a class's for each of its
            members), ascending (prunable,).
        target: the budget, if there was one.
        wanted, reached: what the target asks for and what the plan costs, in its unit; None without one.
        knapsack: whether channels were ordered by their score for what they cost.
        importance_kept: the share of the scores of all prunable channels that stays.
    """

    keep: Mapping[int, np.ndarray]
    strategy: str
    score: str
    percent: float
    layer_keep: float
    round_to: int
    prunable: int
    requested: int
    cut: int
    threshold: float
    protected: tuple[tuple[int, str], ...]
    scores: np.ndarray
    gammas: np.ndarray
    target: budget.Target | None = None
    wanted: float | None = None
    reached: float | None = None
    knapsack: bool = False
    importance_kept: float = 1.0


def plan(
    model,
    percent: float | str = 0.85,
    strategy: str = "normal",
    layer_keep: float = 0.01,
    round_to: int = 1,
    fold: str = "exact",
    score: str = "gamma",
    target: budget.Target | None = None,
    context: Context | None = None,
    knapsack: bool = False,
    floors: Mapping[int, float] | None = None,
) -> PrunePlan:
    """Decides which channels stay, by the scores of all prunable classes together.

    Args:
        model: a Darknet. It is only read.
        percent: the share of the prunable channels to cut, 0 to 1: floor(percent * n) of them, or the next
            number that whole classes make. Ties go by score, layer, channel. "auto": what lies before the
            valley of the scores (valley.py), where training has parted them.
        strategy: which classes may be cut, and what they score: see darkslim/pruning/policy.py.
        layer_keep: every convolution keeps at least max(1, ceil(layer_keep * filters)) channels.
        round_to: widths in the compact network are multiples of this, or the full width.
        fold: how the plan will be applied; with `exact`, rounding and budgets make room for the carriers.
        score: how much a channel matters: one of `policy.SCORE_NAMES`.
        target: a budget in place of `percent`.
        context: what the scores `random` (a seed) and `taylor` (batches) need.
        knapsack: with a target, order channels by their score for what they cost (knapsack.py).
        floors: convolution -> the share of its channels that it keeps at least, beside `layer_keep`
            (layer_losses.py).

    Raises:
        RequestError: a value out of range, nothing is prunable, or scores without a valley.
        WeightsError: weights that are no finite numbers.
    """
    _check_request(percent, strategy, layer_keep, round_to, fold, score)
    if knapsack:
        _check_knapsack(target, score)
    channels = Channels(model.graph)
    classes, protected = _prunable(model, channels, strategy)
    scores = policy.class_scores(model, channels, classes, strategy, score, context)
    cost = target and target.cost(channels)
    order = classes[np.lexsort((classes, scores))]
    if knapsack:
        order = order_by_worth(channels, classes, scores, cost, round_to)
    rules = Rules(channels, order, layer_keep, round_to, floors)
    wanted = (
        None
        if target is None
        else target.value * (1 if target.absolute else cost(np.ones(channels.count, dtype=bool)))
    )
    requested = _before_valley(scores, classes, rules, score) if percent == AUTO else rules.requested(percent)
    percent = requested / rules.total if percent == AUTO else percent
    cut = _settle(
        model, rules, fold, requested, cost, wanted, refine=target is not None and target.kind != "latency"
    )
    reached = None
    if target is not None:
        reached = cost(~cut | _carried(model, channels, rules.keep_of(cut), fold))
        requested, percent = rules.amount(cut), rules.amount(cut) / rules.total
    gone = scores[cut[classes]]
    gammas = policy.class_scores(model, channels, classes, strategy, "gamma")
    return PrunePlan(
        _frozen(rules.keep_of(cut)),
        strategy,
        score,
        float(percent),
        float(layer_keep),
        int(round_to),
        rules.total,
        requested,
        rules.amount(cut),
        float(gone.max()) if len(gone) else 0.0,
        protected,
        _ascending(scores),
        _ascending(np.repeat(gammas, rules.sizes[classes])),
        target,
        wanted,
        reached,
        knapsack,
        _share_kept(scores * rules.sizes[classes], cut[classes]),
    )


def _check_knapsack(target: budget.Target | None, score: str) -> None:
    if target is None:
        raise RequestError("--knapsack", "given without a target", "--target-macs, -params or -latency")
    if score.split("-")[0] == "repair":
        raise RequestError("--knapsack", "given with --score repair", "another score", "it is by MAC already")


def _prunable(model, channels: Channels, strategy: str) -> tuple[np.ndarray, tuple[tuple[int, str], ...]]:
    """The classes that a strategy may cut, at least one; layers that it may not, each with the reason."""
    classes, protected = channels.prunable(strategy), tuple(channels.protected_layers(strategy))
    if not len(classes):
        why = f"; layer {protected[0][0]} {protected[0][1]}" if protected else ""
        raise RequestError(
            model.cfg.path,
            f"nothing can be pruned by strategy {strategy}{why}",
            "a convolution with batch_normalize=1 that feeds no head and is not joined with others",
        )
    return classes, protected


def _share_kept(importance: np.ndarray, gone: np.ndarray) -> float:
    total = float(importance.sum())
    return 1 - float(importance[gone].sum()) / total if total > 0 else 1.0


def _before_valley(scores: np.ndarray, classes: np.ndarray, rules: Rules, score: str) -> int:
    """How many channels lie before the valley of the scores and can go: none behind it is cut for one that
    the rules keep.
    """
    bottom = valley(np.repeat(scores, rules.sizes[classes]))
    if bottom is None:
        raise RequestError(
            "--percent auto",
            f"the scores ({score}) have no valley: nothing parts channels that matter from others",
            "a network that was trained with -sr --sr_penalty polarization or gate (then --score readers)",
            "name a ratio, or press longer or with a larger --s",
        )
    return rules.amount(rules.first(int((scores < bottom).sum())))


def _frozen(keep: dict[int, np.ndarray]) -> Mapping[int, np.ndarray]:
    for kept in keep.values():
        kept.setflags(write=False)
    return MappingProxyType(keep)


def _ascending(values: np.ndarray) -> np.ndarray:
    values = np.sort(values)
    values.setflags(write=False)
    return values


def masked(model, plan: PrunePlan):
    """A copy of `model` with the gammas of the cut channels at 0 (kernels, where there are none) and
    everything else as it was.

    Raises:
        RequestError: the plan was made for another network.
    """
    check(plan, Channels(model.graph))
    return mask(twin(model), plan.keep)


def mask(model, keep: Mapping[int, np.ndarray]):
    """Sets the gammas of the cut channels of `model` to 0, in place, and returns it.

    Where a convolution has no gammas, its kernels are set to 0, so that its biases are left as betas are
    elsewhere.
    """
    with torch.no_grad():
        for layer, kept in keep.items():
            if not kept.all():
                bn = batch_norm(model, layer)
                scale = convolution(model, layer).weight if bn is None else bn.weight
                scale[torch.from_numpy(~kept).to(scale.device)] = 0
    return model


def check(plan: PrunePlan, channels: Channels) -> None:
    """Refuses a plan that does not fit the network: other layers or widths, classes that are split, layers
    left empty.

    Raises:
        RequestError: with the layer.
    """
    nodes = channels.graph.nodes
    if sorted(plan.keep) != sorted(channels.convolutions):
        raise RequestError(
            "plan",
            f"is for convolutions {sorted(plan.keep)[:8]}...",
            f"{list(channels.convolutions)[:8]}...",
            "apply it to the network that it was made for",
        )
    kept = np.ones(channels.count, dtype=bool)
    for layer, keep in plan.keep.items():
        if keep.dtype != bool or keep.shape != (nodes[layer].shape[0],):
            raise RequestError(
                f"plan, layer {layer}",
                f"keep is {keep.dtype} {keep.shape}",
                f"bool ({nodes[layer].shape[0]},)",
            )
        kept[channels.ids[layer][~keep]] = False
    for layer, keep in plan.keep.items():
        split = np.flatnonzero(kept[channels.ids[layer]] != keep)
        if len(split):
            raise RequestError(
                f"plan, layer {layer}",
                f"channel {split[0]} is kept, but a channel that it is joined with is cut",
                "classes as a whole",
            )
        bad = next((c for c in channels.ids[layer][~keep].tolist() if c in channels.protected), None)
        if bad is not None:
            raise RequestError(f"plan, layer {layer}", f"cuts a channel that {channels.protected[bad]}")
    for node in nodes:
        if not kept[channels.ids[node.index]].any():
            raise RequestError(f"plan, layer {node.index}", "is left without a channel", "at least one")
    for layer, groups in channels.slices:
        if len(set(kept[channels.of(layer)].reshape(groups, -1).sum(axis=1).tolist())) > 1:
            raise RequestError(
                f"plan, layer {layer}",
                f"is sliced in {groups}, but its slices keep different numbers of channels",
            )


def _check_request(percent, strategy, layer_keep, round_to, fold, score) -> None:
    if percent == AUTO:
        pass
    elif isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 <= percent <= 1:
        raise RequestError("percent", repr(percent), "a number from 0 to 1, or auto")
    if not isinstance(layer_keep, (int, float)) or not 0 <= layer_keep <= 1:
        raise RequestError("layer_keep", repr(layer_keep), "a number from 0 to 1")
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise RequestError("round_to", repr(round_to), "a whole number of at least 1")
    policy.check_names(strategy, score)
    if fold not in FOLDS:
        raise RequestError("fold", repr(fold), "one of " + ", ".join(FOLDS))


def _settle(
    model,
    rules: Rules,
    fold: str,
    requested: int,
    cost: budget.Cost | None,
    wanted: float | None,
    refine: bool,
) -> np.ndarray:
    """The cut, bool (classes,), that meets the request after all rules, with the carriers where they count.

    Which classes stay as carriers depends on the cut, and where rounding or a budget counts them the cut
    depends on them: a few rounds settle that. Where they keep moving, rounding has the last word, and only
    takes channels back.
    """
    channels = rules.channels
    carried = np.zeros(channels.count, dtype=bool)

    def meet() -> np.ndarray:
        return rules.meet(requested) if cost is None else budget.reach(rules, cost, wanted, carried, refine)

    cut = meet()
    if fold != "exact" or (rules.round_to == 1 and cost is None):
        return cut
    for _ in range(4):
        again = _carried(model, channels, rules.keep_of(cut), fold)
        if (again == carried).all():
            return cut
        carried, rules.extra = again, _widths(channels, again)
        cut = meet()
    while rules.round_to > 1:
        rules.extra = _widths(channels, _carried(model, channels, rules.keep_of(cut), fold))
        wider = rules.applied(cut)
        if (wider == cut).all():
            break
        cut = wider
    return cut


def _carried(model, channels: Channels, keep, fold: str) -> np.ndarray:
    """bool (classes,): the cut classes that stay as carriers."""
    carried = np.zeros(channels.count, dtype=bool)
    if fold == "exact":
        carried[[c.channel_class for c in carriers.fold(model, channels, keep).carriers]] = True
    return carried


def _widths(channels: Channels, carried: np.ndarray) -> dict[int, int]:
    """Convolution -> how many of its channels are carriers."""
    return {layer: n for layer in channels.convolutions if (n := int(carried[channels.ids[layer]].sum()))}
