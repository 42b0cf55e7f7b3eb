"""A sweep of pruning ratios: which one to take, and the rows as a table, as CSV and as a picture.

A row is a dict: `percent` (share of the prunable channels that is cut, 0 to 1), `params`, `macs` (batch 1),
`bytes` (of the .weights file), `latency` (seconds, or None where it was not measured), `map50` (before any
finetuning, or None without a data set) and, where the network was repaired (recalibrated or reconstructed),
`map50_folded` (mAP without that).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from .figures import fit
from .tables import right

COLUMNS = ("percent", "map50_folded", "map50", "params", "macs", "bytes", "latency")
SIZES = (("params", "parameters", "#2a6f97"), ("macs", "MACs", "#c2557a"), ("latency", "latency", "#d98e04"))
MAP, FOLDED, GOOD = "#2f8f6b", "#9aa3ad", "#b3261e"
_SLACK = 1e-9  # 0.8 - 0.1 is 0.7 and a little
_TITLE_PAD = 34  # points over the first panel: room for the two lines about the recommended ratio


def recommend(rows: Sequence[dict], base_map50: float | None, allowed: float, safe: float) -> int | None:
    """Which row to take.

    Args:
        base_map50: mAP of the network before the cut; None without a data set.
        allowed: how much of it may be lost before finetuning, absolute.
        safe: the share of gammas that are near zero.

    Returns:
        The index of the row with the fewest MACs among those with mAP of at least `base_map50 - allowed`; of
        equal ones that with the lower percent. Without any mAP the largest percent of at most `safe`. None if
        no row will do.
    """
    if base_map50 is None or all(row["map50"] is None for row in rows):
        good = [i for i, row in enumerate(rows) if row["percent"] <= safe + _SLACK]
        return max(good, key=lambda i: (rows[i]["percent"], -rows[i]["macs"]), default=None)
    good = [
        i
        for i, row in enumerate(rows)
        if row["map50"] is not None and row["map50"] >= base_map50 - allowed - _SLACK
    ]
    return min(good, key=lambda i: (rows[i]["macs"], rows[i]["percent"]), default=None)


def sweep_table(rows: Sequence[dict], recommended: int | None) -> str:
    """One line a ratio, the recommended one marked; columns that no row has a value for are left out."""
    columns = [
        ("cut", "percent", lambda v: f"{100 * v:.4g}%"),
        ("before repair", "map50_folded", "{:.4f}".format),
        ("mAP50", "map50", "{:.4f}".format),
        ("parameters", "params", "{:,}".format),
        ("MACs", "macs", lambda v: f"{v / 1e9:.3f} G"),
        ("size", "bytes", lambda v: f"{v / 1e6:.2f} MB"),
        ("latency, batch 1", "latency", lambda v: f"{v * 1e3:.1f} ms"),
    ]
    columns = [column for column in columns if any(row.get(column[1]) is not None for row in rows)]
    table = [["", *(name for name, _, _ in columns)]]
    for i, row in enumerate(rows):
        cells = ["-" if row.get(key) is None else show(row[key]) for _, key, show in columns]
        table.append(["recommended" if i == recommended else "", *cells])
    return right(table)


def sweep_csv(rows: Sequence[dict], recommended: int | None) -> bytes:
    """All rows as CSV (RFC 4180, lines end in CR LF): a header, plain numbers, an empty field for None,
    `recommended` 0 or 1.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, "recommended"])
    for i, row in enumerate(rows):
        writer.writerow([*(row.get(key) for key in COLUMNS), int(i == recommended)])
    return text.getvalue().encode("ascii")


def sweep_figure(
    rows: Sequence[dict], recommended: int | None, before: dict, title: str, allowed: float | None = None
) -> Callable[[Path], None]:
    """mAP over the ratio, and parameters, MACs and latency as shares of those before.

    Args:
        before: the dense network: `map50` (or None), `params`, `macs`, `latency` (or None).
        allowed: how much mAP may be lost, drawn as a band under the dense value.

    Returns:
        A writer for `files.Save`: called with a path, it writes the PNG there. Without any mAP there is only
            the second panel.
    """
    figure = draw_sweep(rows, recommended, before, title, allowed)
    return lambda path: figure.savefig(path, dpi=130, format="png")


def draw_sweep(
    rows: Sequence[dict], recommended: int | None, before: dict, title: str, allowed: float | None = None
):
    """The picture as a matplotlib Figure; arguments as of `sweep_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scored = any(row["map50"] is not None for row in rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i]["percent"])
    chosen = None if recommended is None else rows[recommended]
    rows = [rows[i] for i in order]
    figure = Figure(figsize=(7.6, 7.4 if scored else 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if scored else 1, 1, sharex=True, squeeze=False)[:, 0]
    if scored:
        _draw_map(panels[0], rows, before["map50"], allowed)
    _draw_sizes(panels[-1], rows, before)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", fontsize=8)
        if chosen:
            axes.axvline(100 * chosen["percent"], color=GOOD, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    if chosen:
        _mark(panels, chosen, before, scored)
    panels[-1].set_xlabel("prunable channels cut, %")
    panels[0].set_title(
        fit(title, 11, 6.6, bold=True),
        loc="left",
        fontsize=11,
        fontweight="bold",
        pad=_TITLE_PAD if chosen else 8,
    )
    return figure


def _draw_map(axes, rows: list[dict], dense: float | None, allowed: float | None) -> None:
    if dense is not None:
        axes.axhline(dense, color="#333b45", linewidth=1.2, label=f"before the cut: {dense:.4f}")
        if allowed is not None:
            axes.axhspan(
                dense - allowed, dense, color=MAP, alpha=0.2, linewidth=0, label=f"allowed drop: {allowed:g}"
            )
            axes.axhline(dense - allowed, color=MAP, linewidth=0.8, linestyle=":")
    folded = [row for row in rows if row.get("map50_folded") is not None]
    if folded:
        axes.plot(
            [100 * r["percent"] for r in folded],
            [r["map50_folded"] for r in folded],
            "o--",
            color=FOLDED,
            markersize=4,
            linewidth=1.2,
            label="after the cut, before repair",
        )
    points = [row for row in rows if row["map50"] is not None]
    axes.plot(
        [100 * r["percent"] for r in points],
        [r["map50"] for r in points],
        "o-",
        color=MAP,
        markersize=5,
        linewidth=1.8,
        label="after repair" if folded else "after the cut",
    )
    axes.set_ylabel("mAP50 before finetuning")


def _draw_sizes(axes, rows: list[dict], before: dict) -> None:
    for key, name, colour in SIZES:
        points = [row for row in rows if row.get(key) is not None]
        if points and before.get(key):
            axes.plot(
                [100 * r["percent"] for r in points],
                [100 * r[key] / before[key] for r in points],
                "o-",
                color=colour,
                markersize=4,
                linewidth=1.6,
                label=name,
            )
    axes.set_ylabel("share of before the cut, %")


def _mark(panels, chosen: dict, before: dict, scored: bool) -> None:
    """The recommended row: a ring around each of its points, and its numbers over the panels, where no line
    runs.
    """
    x = 100 * chosen["percent"]
    style = {
        "marker": "o",
        "markersize": 11,
        "markerfacecolor": "none",
        "markeredgecolor": GOOD,
        "markeredgewidth": 1.6,
        "linestyle": "none",
    }
    if scored and chosen["map50"] is not None:
        panels[0].plot([x], [chosen["map50"]], gid="recommended map50", **style)
    words = []
    for key, name, _ in SIZES:
        if chosen.get(key) is not None and before.get(key):
            share = 100 * chosen[key] / before[key]
            panels[-1].plot([x], [share], gid=f"recommended {key}", **style)
            words.append(f"{name} {share:.0f}%")
    first = f"recommended: cut {x:.4g}%" + (
        "" if chosen["map50"] is None else f", mAP50 {chosen['map50']:.4f}"
    )
    low, high = panels[0].get_xlim()
    align = "left" if x < low + 0.3 * (high - low) else "right" if x > high - 0.3 * (high - low) else "center"
    panels[0].annotate(
        f"{first}\n{', '.join(words)}",
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha=align,
        va="bottom",
        fontsize=8.5,
        color=GOOD,
        gid="recommended",
    )
