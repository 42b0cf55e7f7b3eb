"""What a user should know about a plan before it is applied: requests that are not met, and cuts that go too
deep.
"""

from __future__ import annotations

import numpy as np

from ..network.channels import Channels
from .budget import NEAR, amount
from .importance import NEAR_ZERO, sparsity
from .plan import PrunePlan

NONE = 0.005  # share near zero up to which a network was never pressed
LITTLE = 0.25  # share of the channels under which a strategy can do little
FEW, PART = 8, 1 / 16  # channels, and share of what a layer had, below which little passes it
HEAVY = 0.5  # gamma of a block, against the median, from which it matters


def of_blocks(removed, gammas) -> str | None:
    """Warns about residual blocks that were removed though their gammas say that they matter.

    Args:
        removed: the `Block`s. gammas: |gamma| of the prunable channels.
    """
    median = float(np.median(gammas)) if len(gammas) else 0.0
    heavy = [b for b in removed if b.score > HEAVY * median > 0]
    if not heavy:
        return None
    worst = max(heavy, key=lambda b: b.score)
    return (
        f"{len(heavy)} of the residual blocks removed still matter: mean |gamma| {worst.score:.3g} before "
        f"the shortcut of layer {worst.shortcut}, where the median of the network is {median:.3g}; finetune, "
        "or train with -sr --strategy slim first"
    )


def of_strategy(channels: Channels, strategy: str) -> str | None:
    """Says when a strategy may touch only a small part of what another could cut."""
    mine, most = (
        sum(int(k.sum()) for k in channels.prunable_channels(s).values()) for s in (strategy, "slim")
    )
    if strategy != "normal" or not most or mine >= LITTLE * most:
        return None
    return (
        f"strategy normal may cut {mine:,} of the {most:,} channels that --strategy slim may: most of them "
        "are joined by shortcuts or depthwise convolutions"
    )


def warnings_for(decision: PrunePlan, measured: bool = False) -> list[str]:
    """Warnings, one line each; empty where all is well.

    Args:
        measured: the cut was chosen by its mAP, or is repaired, so that the gammas need not be asked.
    """
    said = (_not_met(decision), None if measured else _too_deep(decision), _narrow(decision))
    return [text for text in said if text]


def _not_met(decision: PrunePlan) -> str | None:
    limits = f"--layer_keep {decision.layer_keep:g} and --round_to {decision.round_to}"
    if decision.cut < decision.requested:
        return (
            f"{decision.requested} channels were to be cut, {decision.cut} can be: the floor of {limits} "
            "keep the rest"
        )
    if decision.target is not None and abs(decision.reached / decision.wanted - 1) > NEAR:
        wanted, reached = (
            amount(decision.target.kind, value) for value in (decision.wanted, decision.reached)
        )
        if not decision.cut and decision.reached < decision.wanted:
            return f"the target of {wanted} is more than the network has now, {reached}: no channel is cut"
        return (
            f"the target of {wanted} cannot be met: {reached} is the nearest that strategy "
            f"{decision.strategy}, {limits} allow"
        )
    return None


def _too_deep(decision: PrunePlan) -> str | None:
    found = sparsity(decision.gammas)
    if decision.percent <= found.near_zero or not decision.cut or not decision.threshold:
        return None  # at threshold 0 all that goes is closed already
    safe = int(100 * found.near_zero + 1e-6) / 100  # 100 * 0.29 is 28.999999999999996
    share = (
        f"{100 * found.near_zero:.0f}% of the gammas are near zero (below {NEAR_ZERO:g} of the 99th "
        "percentile)"
    )
    asked = (
        f"--percent {decision.percent:.3g}"
        if decision.target is None
        else f"cutting {decision.percent:.3g} of the channels"
    )
    if found.trained:
        return (
            f"{share}; {asked} goes deeper, so expect mAP to fall before finetuning (safe now: {safe:g}; "
            "--score repair --reconstruct 8 cuts where the rest can make up for it)"
        )
    if found.near_zero > NONE:
        return (
            f"sparsity training was too weak for this cut: only {share}; --percent {safe:g} is safe now, "
            f"{decision.percent:.3g} cuts channels that matter: press longer or with a larger --s, or expect "
            "to finetune from a low mAP"
        )
    return (
        f"this network looks never trained for sparsity: only {share}, the median is "
        f"{found.quantiles[50]:.3g} and the "
        f"largest {found.quantiles[100]:.3g}; --percent {safe:g} is safe now, {decision.percent:.3g} cuts "
        "channels that matter: "
        "run train.py with -sr first, repair it with --reconstruct 8, or expect to finetune from a low mAP"
    )


def _narrow(decision: PrunePlan) -> str | None:
    """Names layers through which nearly nothing passes any more. Neither a repair nor finetuning mends that:
    cuts by gamma of a yolov3-tiny to 15% of its MACs left such layers and cost a tenth of mAP.
    """
    if not decision.threshold:
        return None  # all that goes is closed already
    widths = {layer: (int(keep.sum()), len(keep)) for layer, keep in decision.keep.items()}
    found = {layer: w for layer, w in widths.items() if w[0] < FEW and w[0] < PART * w[1]}
    if not found:
        return None
    narrow = ", ".join(f"{left} of {had} (layer {layer})" for layer, (left, had) in list(found.items())[:3])
    more = f" and {len(found) - 3} more layers" if len(found) > 3 else ""
    return (
        f"channels that stay: {narrow}{more}; hardly anything passes so few, and finetuning may not mend "
        "that: --score repair, or a larger --layer_keep, spares such layers"
    )
