"""What cutting each layer alone costs: a table, a CSV file and a picture.

A row has `layer`, `layers` (all that are cut with it), `channels`, `share`, `cut` and `rise` (of the loss, as
a share of what it was).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from .figures import fit
from .tables import right

MOST = 1.0  # a rise from which on all is one colour: the loss is twice what it was


def named(row) -> str:
    """The layer, and how many others go with it."""
    others = len(row.layers) - 1
    return f"{row.layer}" + (f" and {others} more" if others else "")


def by_layer(rows: Sequence) -> dict[tuple[int, ...], list]:
    """Layers -> their rows, in the order of the network."""
    found: dict[tuple[int, ...], list] = {}
    for row in rows:
        found.setdefault(row.layers, []).append(row)
    return found


def layers_table(rows: Sequence) -> str:
    """One line a layer, one column a share."""
    shares = sorted({row.share for row in rows})
    table = [["layer", "channels", *(f"{100 * share:.4g}% cut" for share in shares)]]
    for mine in by_layer(rows).values():
        rises = {row.share: f"{row.rise:+.1%}" for row in mine}
        table.append([named(mine[0]), str(mine[0].channels), *(rises[share] for share in shares)])
    return right(table)


def layers_csv(rows: Sequence) -> bytes:
    """All rows as CSV (RFC 4180, lines end in CR LF); layers that are cut together with spaces between."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["layer", "layers", "channels", "share", "cut", "rise"])
    for row in rows:
        together = " ".join(map(str, row.layers))
        writer.writerow([row.layer, together, row.channels, row.share, row.cut, row.rise])
    return text.getvalue().encode("ascii")


def layers_figure(rows: Sequence, title: str) -> Callable[[Path], None]:
    """A writer for `files.Save`: called with a path, it writes the PNG there."""
    figure = draw_layers(rows, title)
    return lambda path: figure.savefig(path, dpi=130, format="png")


def draw_layers(rows: Sequence, title: str):
    """The picture as a matplotlib Figure: a line a layer, a column a share, the rise as colour and number."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers, shares = by_layer(rows), sorted({row.share for row in rows})
    values = np.array([[row.rise for row in sorted(mine, key=lambda r: r.share)] for mine in layers.values()])
    high = 1.6 + 0.24 * len(layers)
    figure = Figure(figsize=(6.4, high), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(np.clip(values, 0, MOST), cmap="YlOrRd", vmin=0, vmax=MOST, aspect="auto")
    for (line, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.65 * MOST else "#222222"
        said = f"{100 * value:+.0f}%" if abs(value) < 9.995 else f"{value + 1:.0f}x"
        axes.text(column, line, said, ha="center", va="center", color=colour, fontsize=7.5)
    axes.set_xticks(range(len(shares)), [f"{100 * share:.4g}%" for share in shares])
    axes.set_yticks(range(len(layers)), [named(mine[0]) for mine in layers.values()], fontsize=8)
    axes.set_xlabel("of the layer's channels cut, alone")
    axes.set_ylabel("layer")
    axes.set_title(fit(title, 10.5, 5.2, bold=True), loc="left", fontsize=10.5, fontweight="bold")
    bar = figure.colorbar(image, ax=axes, ticks=[0, MOST / 2, MOST], shrink=min(1.0, 2.4 / high), pad=0.02)
    bar.ax.set_yticklabels(["0", "+50%", "+100% or more"], fontsize=7.5)
    bar.set_label("rise of the loss", fontsize=8)
    return figure
