"""A cut as text for the terminal."""

from __future__ import annotations

from ..pruning.budget import amount
from . import tables


def gammas(found, decision) -> str:
    """How the gammas of the prunable channels lie, and what a budget came to.

    Args:
        found: a `Sparsity`. decision: a `PrunePlan`.
    """
    lines = [
        f"|gamma| of the {decision.prunable} prunable channels: "
        + ", ".join(f"{mark}% {value:.4f}" for mark, value in found.quantiles.items()),
        tables.histogram(found.histogram),
    ]
    if decision.target is not None:
        kind = decision.target.kind
        lines.append(
            f"target: {amount(kind, decision.wanted)} wanted, {amount(kind, decision.reached)} reached "
            f"({decision.reached / decision.wanted - 1:+.2%}) by cutting {decision.percent:.1%} of the "
            "prunable channels"
        )
    return "\n".join(lines)


def cut(made) -> str:
    """What was removed, cut and protected, and what the proof found.

    Args:
        made: a `Cut`.
    """
    d, carriers, protected, lines = made.decision, made.carriers(), made.protected(), []
    for b in made.blocks:
        lines.append(
            f"residual block removed: layers {b.body[0]} to {b.shortcut}, mean |gamma| {b.score:.4g} in "
            f"layer {b.convolution}"
        )
    lines.append(tables.layers(made.rows(), carriers))
    if protected:
        lines += [f"not cut by strategy {d.strategy}:", tables.protected(protected)]
    lines.append(
        f"{d.cut} of {d.prunable} prunable channels cut ({d.score} up to {d.threshold:.4g}); "
        f"{sum(carriers.values())} of them stay as constant carriers"
    )
    size = made.proof.size
    lines.append(
        f"compact against masked over {made.proof.images} random images of {size[1]}x{size[0]}: "
        f"{made.proof.max_abs_diff:.2e} at most, {made.proof.relative:.1e} of the largest value (folding: "
        f"{made.fold})"
    )
    lines.append(
        "what each way of folding leaves: "
        + ", ".join(f"{fold} {value:.1e}" for fold, value in made.differences.items())
    )
    if made.pictures:
        was = "" if made.folded_map50 is None else f"; mAP50 was {made.folded_map50:.4f} before"
        if made.repair == "recalibrate":
            lines.append(f"batch norms re-estimated on {made.pictures} training pictures{was}")
        else:
            before, after = (
                sum(getattr(fit, side) for fit in made.fits) / max(len(made.fits), 1)
                for side in ("before", "after")
            )
            lines.append(
                f"{len(made.fits)} convolutions solved again on {made.pictures} training pictures: they miss "
                f"what they made before the cut by {after:.1%} of its variance, {before:.1%} without it{was}"
            )
    return "\n".join(lines)
