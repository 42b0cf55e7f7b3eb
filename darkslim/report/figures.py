"""Pictures as PNG files, drawn without a display."""

from __future__ import annotations

import functools
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


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line of text in the default font becomes, in inches; `size` in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight="bold" if bold else "normal"), False)[0] / 72


def fit(text: str, size: float, width: float, bold: bool = False) -> str:
    """`text`, cut with an ellipsis to at most `width` inches."""
    if text_width(text, size, bold) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle] + "…", size, bold) <= width else (low, middle - 1)
    return text[:low].rstrip() + "…"
