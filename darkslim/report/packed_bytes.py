"""What deep compression comes to: a table by stage, one by layer, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .tables import right

STEPS = (("sparse", "zeros left out"), ("shared", "values shared"), ("coded", "coded"))
COLOURS = ("#bdbdbd", "#6baed6", "#fdae61", "#1a7f37")


def by_stage(stages: Sequence[dict], entropy: float) -> str:
    """One row a stage: bytes, and how many times smaller than float32."""
    rows = [["stage", "bytes", "smaller"]]
    whole = stages[0]["bytes"]
    for stage in stages:
        rows.append([stage["name"], f"{stage['bytes']:,}", f"{whole / max(1, stage['bytes']):.1f}x"])
    least = max(1.0, entropy)
    rows.append(["entropy bound", f"{round(least):,}", f"{whole / least:.1f}x"])
    return right(rows)


def by_layer(layers: Sequence[dict]) -> str:
    """One row a layer's kernels."""
    rows = [["layer", "weights", "zeros", "values", "float32", "coded", "bits a weight"]]
    for row in layers:
        rows.append(
            [
                str(row["layer"]),
                f"{row['count']:,}",
                f"{1 - row['kept'] / max(1, row['count']):.1%}",
                str(row["values"]) if row["values"] else "-",
                f"{4 * row['count']:,}",
                f"{row['coded']:,}",
                f"{8 * row['coded'] / max(1, row['count']):.2f}",
            ]
        )
    return right(rows)


def bytes_figure(layers: Sequence, title: str) -> Callable[[Path], None]:
    """Bars: what each layer's kernels take at each stage, on a logarithmic axis.

    Returns:
        A writer for `files.Save`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.32 * len(layers) + 2), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places, steps = np.arange(len(layers)), [("float32", [4.0 * row.count for row in layers])]
    steps += [(name, [max(1.0, getattr(row, key)) for row in layers]) for key, name in STEPS]
    wide = 0.8 / len(steps)
    for number, ((name, values), colour) in enumerate(zip(steps, COLOURS, strict=True)):
        axes.bar(places + (number - 1.5) * wide, values, wide, label=name, color=colour)
    axes.set_yscale("log")
    axes.set_xticks(
        places, [str(row.layer) for row in layers], fontsize=8, rotation=90 if len(layers) > 20 else 0
    )
    axes.set(xlabel="layer", ylabel="bytes of the kernels", title=title)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, ncols=4, loc="upper left")
    axes.margins(y=0.15)
    return lambda path: figure.savefig(path, dpi=110, format="png")
