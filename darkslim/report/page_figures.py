"""The charts of the page, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np

BEFORE, AFTER, LINE = "#d55e00", "#0072b2", "#52606f"
MARKS = "osD^vP*X"


def figure(width: float = 6.4, height: float = 4.0, columns: int = 1):
    """A matplotlib figure without a display, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(1, columns)


def png(made) -> bytes:
    """Its bytes."""
    stream = io.BytesIO()
    made.savefig(stream, dpi=120, format="png")
    return stream.getvalue()


def drawn(write: Callable) -> bytes:
    """The bytes of a picture that knows how to write itself to a path."""
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def gamma_histogram(before: np.ndarray, after: np.ndarray, threshold: float | None) -> bytes:
    """How large the |gammas| are before and after, on a logarithmic scale of counts."""
    made, axes = figure()
    most = float(max(before.max(initial=0.0), after.max(initial=0.0))) or 1.0
    edges = np.linspace(0, most, 50)
    axes.hist(before, edges, color=BEFORE, alpha=0.55, label=f"before: {len(before):,} channels")
    axes.hist(after, edges, histtype="step", linewidth=1.8, color=AFTER, label=f"after: {len(after):,}")
    if threshold is not None and 0 < threshold < most:
        axes.axvline(threshold, color=LINE, linestyle="--", linewidth=1, label="threshold")
    axes.set(xlabel="|gamma|", ylabel="channels", yscale="log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return png(made)


def sizes_and_scores(points: Sequence[tuple[str, float, float]]) -> bytes:
    """mAP against multiply-adds: (name, MACs, mAP50) of each network, in order."""
    made, axes = figure()
    macs, scores = ([point[i] for point in points] for i in (1, 2))
    scale, unit = (1e9, "G") if max(macs) >= 1e9 else (1e6, "M")
    axes.plot([m / scale for m in macs], scores, color=LINE, linewidth=0.8, zorder=1)
    for i, (name, m, score) in enumerate(points):
        last = i == len(points) - 1
        axes.plot(m / scale, score, MARKS[0 if not i else 1 if last else 2], color=BEFORE if not i else AFTER)
        axes.annotate(name, (m / scale, score), textcoords="offset points", xytext=(5, 6), fontsize=8)
    axes.set(xlabel=f"multiply-adds of a picture, {unit}", ylabel="mAP50")
    axes.set_xlim(0, 1.15 * max(macs) / scale)
    _room(axes, scores)
    axes.grid(alpha=0.3)
    return png(made)


def times_and_scores(rows: Sequence[tuple[str, float, float]], before: float, after: float) -> bytes:
    """mAP against measured milliseconds: (engine, seconds before, after), one line an engine."""
    made, axes = figure()
    for i, (name, first, last) in enumerate(rows):
        (line,) = axes.plot([1e3 * first, 1e3 * last], [before, after], linewidth=0.9, alpha=0.8)
        axes.plot(1e3 * first, before, MARKS[i % len(MARKS)], color=line.get_color(), fillstyle="none")
        axes.plot(1e3 * last, after, MARKS[i % len(MARKS)], color=line.get_color(), label=name)
    axes.set(xlabel="ms a picture, batch 1 (hollow: before)", ylabel="mAP50")
    axes.set_xlim(left=0)
    _room(axes, [before, after])
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return png(made)


def _room(axes, scores: Sequence[float]) -> None:
    low, high = min(scores), max(scores)
    margin = max(0.02, 0.25 * (high - low))
    axes.set_ylim(max(0, low - margin), min(1.02, high + margin))


def surgery(rows: Sequence[dict]) -> bytes:
    """Shares of all weights over the epochs of surgery: pruned, came back, more than once."""
    made, axes = figure()
    epochs = [row["epoch"] for row in rows]
    (pruned,) = axes.plot(epochs, [100 * row["zeros"] for row in rows], "o-", color=AFTER, label="pruned")
    other = axes.twinx()
    (back,) = other.plot(
        epochs, [100 * row["returned"] for row in rows], "s-", color=BEFORE, label="came back"
    )
    again = [100 * row["again"] for row in rows]
    (more,) = other.plot(epochs, again, "^-", color=LINE, label="went and came more than once")
    axes.set(xlabel="epoch", ylabel="pruned, % of the weights", ylim=(0, 102))
    other.set_ylabel("came back, % of the weights")
    other.set_ylim(bottom=0)
    axes.legend(handles=[pruned, back, more], fontsize=8)
    axes.grid(alpha=0.3)
    return png(made)
