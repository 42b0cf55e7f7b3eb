"""Pictures as PNG files, drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


def channel_bars(rows: Sequence[tuple[int, int, int]], title: str) -> Callable[[Path], None]:
    """A bar chart of channels before and after, one pair a convolution.

    Args:
        rows: (layer, before, after).

    Returns:
        A writer for `files.Save`: called with a path, it writes the PNG there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(max(6.0, 0.22 * len(rows)), 24.0), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    at = range(len(rows))
    axes.bar(at, [before for _, before, _ in rows], width=0.8, color="#c9d3df", label="before")
    axes.bar(at, [after for _, _, after in rows], width=0.8, color="#2a6f97", label="after")
    step = max(1, len(rows) // 40)
    axes.set_xticks(list(at)[::step], [str(layer) for layer, _, _ in rows][::step], rotation=90 if len(rows) > 20 else 0, fontsize=7)
    axes.set_xlabel("convolutional layer")
    axes.set_ylabel("channels")
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_title(title)
    axes.legend()
    return lambda path: figure.savefig(path, dpi=110, format="png")
