"""Precision over recall, one line a class, as a PNG drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

SHOWN = 20  # classes that get a line of their own, those with the most truths


class Scored(Protocol):
    """What is drawn of a class; `evaluation.ClassScore` is one."""

    label: int
    ap: float
    truths: int
    curve: tuple[np.ndarray, np.ndarray]


def pr_curve(scores: Sequence[Scored], names: Sequence[str], title: str) -> Callable[[Path], None]:
    """The curves and, under each, the monotone envelope whose area is the AP.

    Args:
        scores: one a class; `curve` is (recall (k,), precision (k,)).
        names: of the classes, by number.

    Returns:
        A writer for `files.Save`: called with a path, it writes the PNG there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for score in sorted(scores, key=lambda s: -s.truths)[:SHOWN]:
        recall, precision = score.curve
        if len(recall):
            name = names[score.label] if score.label < len(names) else str(score.label)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            (line,) = axes.step(
                np.concatenate(([0.0], recall)),
                np.concatenate((envelope[:1], envelope)),
                where="pre",
                linewidth=1.6,
                label=f"{name}  AP {score.ap:.3f}",
            )
            axes.plot(recall, precision, color=line.get_color(), linewidth=0.6, alpha=0.5)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01), title=title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", fontsize=8)
    return lambda path: figure.savefig(path, dpi=110, format="png")
