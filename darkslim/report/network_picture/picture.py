"""A picture of the whole network, with its widths before and after pruning, as a PNG drawn without a
display.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ...network import profile
from ...network.graph import Graph
from ..figures import fit, text_width
from .layout import MARGIN, MOST_LAYERS, Box, Edge, Label, Layout, glyph, lay_out

BEFORE, AFTER, CARRIER, GHOST, INK, MARKED = "#c3cedb", "#2a6f97", "#f0a830", "#9aa3ad", "#333b45", "#b3261e"
EDGES = {"shortcut": "#2f8f6b", "product": "#7d5ba6", "route": "#c2557a"}
GLYPHS = {
    "add": EDGES["shortcut"],
    "multiply": EDGES["product"],
    "concat": EDGES["route"],
    "slice": EDGES["route"],
    "jump": EDGES["route"],
    "pool": "#71808e",
    "average": "#71808e",
    "upsample": "#71808e",
    "reorg": "#71808e",
    "dropout": "#71808e",
    "other": "#71808e",
    "head": "#37414d",
}
NAMES = {
    "add": "shortcut",
    "multiply": "product",
    "concat": "route, joins",
    "slice": "route, a part",
    "jump": "route, one source",
    "pool": "max pool, its size",
    "average": "average pool",
    "upsample": "upsample",
    "reorg": "reorg",
    "dropout": "dropout",
    "head": "head and its grid",
    "other": "other",
}
STAGES = ("#fcfbf9", "#f8f6f1", "#f4f1e9", "#efebe0", "#eae4d6", "#e4ddcc", "#ded6c2")  # finest to coarsest
PIXEL, SEAM = "#efeaf4", 0.015  # the tint of maps of one pixel; between two stages
INKS = {
    "same": AFTER,
    "after": AFTER,
    "before": "#7c8794",
    "removed": GHOST,
    "number": INK,
    "renumbered": AFTER,
    "mark": MARKED,
    "stage": "#6b6452",
    "image": "#6b6452",
    "title": INK,
    "summary": INK,
    "legend": INK,
    "note": INK,
    "letter": MARKED,
}
MOST_REASONS = 12
TITLE, LINE, NOTE = 0.27, 0.2, 0.17  # heights of lines
MOST_PIXELS = 24e6


def network_picture(
    before: Graph,
    after: Graph,
    title: str,
    numbers: Mapping[int, int] | None = None,
    carriers: Mapping[int, int] | None = None,
    protected: Mapping[int, str] | None = None,
) -> Callable[[Path], None]:
    """Every layer in its order: convolutions as bars as high as their channels, light before and dark after.

    Args:
        numbers: layer of `before` -> layer of `after`, where blocks were removed: a layer that is missing is
            drawn crossed out.
            None: the numbers are the same.
        carriers: layer of `before` -> how many of the channels after are constants; they get a tone of their
            own.
        protected: layer of `before` -> why it was not cut; marked with a letter, the reasons stand below.

    Returns:
        A writer for `files.Save`: called with a path, it writes the PNG there.

    Raises:
        RequestError: `numbers` does not lead from `before` to `after`.
    """
    figure = network_figure(before, after, title, numbers, carriers, protected)
    return lambda path: figure.savefig(path, format="png")


def network_figure(before: Graph, after: Graph, title: str, numbers=None, carriers=None, protected=None):
    """The picture as a matplotlib Figure; arguments as of `network_picture`. Its axes are in inches.

    Artists carry a gid: `before 12`, `after 12`, `carriers 12`, `removed 12`, `glyph 13` (layers of
        `before`), `edge 10 13`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    letters = _letters(protected or {})
    marks = {layer: letters[reason] for layer, reason in (protected or {}).items()}
    entries = _legend_entries(before, numbers, carriers, marks)
    width = lay_out(before, after, numbers, carriers, marks).width
    legend, lines = _flow(entries, width)
    layout = lay_out(before, after, numbers, carriers, marks, top=0.12 + TITLE + LINE * (lines + 1) + 0.16)
    notes = _notes(letters, layout)
    height = layout.bottom + NOTE * len(notes) / 2 + 0.1
    dpi = min(150.0, (MOST_PIXELS / (width * height)) ** 0.5)
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    _draw_rows(axes, layout)
    for box, label in legend:
        _draw_box(axes, box, "legend")
        _write(axes, label)
    for label in [*_header(before, after, title, width), *notes]:
        _write(axes, label)
    return figure


# ------------------------------------------------------------------------------------------------------------
# - the words around


def _header(before: Graph, after: Graph, title: str, width: float) -> list[Label]:
    room = width - 2 * MARGIN
    if len(before.nodes) > MOST_LAYERS:
        title += f" (the first {MOST_LAYERS:,} of {len(before.nodes):,} layers)"
    counts = [profile.count(graph) for graph in (before, after)]
    widths = [sum(n.shape[0] for n in graph.nodes if n.type == "convolutional") for graph in (before, after)]
    params, macs = (" → ".join(_short(getattr(count, key)) for count in counts) for key in ("params", "macs"))
    summary = f"channels {widths[0]:,} → {widths[1]:,}     parameters {params}     MACs {macs}"
    return [
        Label("title", MARGIN, 0.12, fit(title, 11, room, bold=True), 11, ha="left"),
        Label("summary", MARGIN, 0.12 + TITLE, fit(summary, 8, room), 8, ha="left"),
    ]


def _short(count: int) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}" if count < 1000 * unit else f"{count / unit:,.0f}{name}"
    return str(count)


def _letters(protected: Mapping[int, str]) -> dict[str, str]:
    """Reason -> a, b, ..., z, aa, ab, ... in the order of the first layer that has it."""
    letters: dict[str, str] = {}
    for layer in sorted(protected):
        n = len(letters)
        letters.setdefault(protected[layer], (chr(96 + n // 26) if n >= 26 else "") + chr(97 + n % 26))
    return letters


def _notes(letters: Mapping[str, str], layout: Layout) -> list[Label]:
    """One line a reason, under the rows: the letter and the reason."""
    shown = list(letters.items())[:MOST_REASONS]
    rows = [(letter, reason) for reason, letter in shown]
    if len(letters) > MOST_REASONS:
        rows.append(("…", f"{len(letters) - MOST_REASONS} more reasons"))
    labels = []
    for i, (letter, reason) in enumerate(rows):
        y, indent = layout.bottom + 0.1 + NOTE * i, MARGIN + 0.22
        labels += [
            Label("letter", MARGIN, y, letter, 7, ha="left", va="baseline"),
            Label(
                "note",
                indent,
                y,
                fit(f"not cut: {reason}", 7, layout.width - MARGIN - indent),
                7,
                ha="left",
                va="baseline",
            ),
        ]
    return labels


def _legend_entries(before: Graph, numbers, carriers, marks) -> list[tuple[Box, str]]:
    """A box at the origin and its words, for everything that is in this picture."""

    def bar(after: int, carried: int = 0, grouped: bool = False, removed: bool = False) -> Box:
        return Box(-1, "conv", "", 0, 0, 0.14, 0.14, 2, after, carried, grouped, removed)

    entries = [(bar(0), "channels before"), (bar(2), "after")]
    if any((carriers or {}).values()):
        entries.append((bar(2, 2), "after, constant carriers"))
    if any(node.type == "convolutional" and node.opts["groups"] > 1 for node in before.nodes):
        entries.append((bar(2, grouped=True), "with groups"))
    if numbers is not None and len(numbers) < len(before.nodes):
        entries.append((bar(0, removed=True), "removed"))
    kinds = dict.fromkeys(glyph(node)[0] for node in before.nodes)
    for kind in (kind for kind in NAMES if kind in kinds):
        text = {"add": "+", "multiply": "×", "concat": "c", "slice": "1/2", "pool": "2", "upsample": "2"}.get(
            kind, ""
        )
        entries.append((Box(-1, kind, text, 0, 0, 0.16, 0.16, 1, 1, 0, False, False), NAMES[kind]))
    if marks:
        entries.append((Box(-1, "mark", "a", 0, 0, 0.1, 0.16, 1, 1, 0, False, False), "not cut, see below"))
    return entries


def _flow(entries: list[tuple[Box, str]], width: float) -> tuple[list[tuple[Box, Label]], int]:
    """The legend in lines that fit the width: (its boxes and labels, number of lines)."""
    placed, x, line = [], MARGIN, 0
    for box, text in entries:
        wide = box.width + 0.06 + text_width(text, 7)
        if x + wide > width - MARGIN and x > MARGIN:
            x, line = MARGIN, line + 1
        middle = 0.12 + TITLE + LINE * (line + 1) + 0.1
        placed.append(
            (
                replace(box, x=x, y=middle - box.height / 2),
                Label("legend", x + box.width + 0.06, middle, text, 7, ha="left", va="center_baseline"),
            )
        )
        x += wide + 0.2
    return placed, line + 1


# ------------------------------------------------------------------------------------------------------------
# --------- the drawing


def _draw_rows(axes, layout: Layout) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    for stage in layout.stages:
        tint = (
            STAGES[min(max(round(stage.level), 0), len(STAGES) - 1)] if math.isfinite(stage.level) else PIXEL
        )
        axes.add_patch(
            Rectangle(
                (stage.x, stage.y),
                stage.width - SEAM,
                stage.height,
                color=tint,
                linewidth=0,
                zorder=0,
                gid=f"stage {stage.first}",
            )
        )
    axes.add_collection(
        LineCollection(
            [[(a, b), (c, d)] for a, b, c, d in layout.chain], colors="#8b95a0", linewidths=1.0, zorder=1
        )
    )
    for edge in layout.edges:
        _draw_edge(axes, edge)
    for box in layout.boxes:
        _draw_box(axes, box, str(box.layer))
    for label in layout.labels:
        _write(axes, label)


def _draw_box(axes, box: Box, name: str) -> None:
    from matplotlib.patches import Rectangle

    if box.kind == "mark":
        _write(
            axes,
            Label("mark", box.x + box.width / 2, box.y + box.height / 2, box.text, 7, va="center_baseline"),
        )
        return
    if box.kind != "conv":
        _draw_glyph(axes, box, name)
        return

    def bar(y: float, height: float, gid: str, **style) -> None:
        axes.add_patch(Rectangle((box.x, y), box.width, height, zorder=2, gid=f"{gid} {name}", **style))

    floor = box.y + box.height
    if box.removed:
        bar(
            box.y,
            box.height,
            "before",
            facecolor="white",
            edgecolor=GHOST,
            linewidth=0.7,
            linestyle=(0, (2, 1.5)),
        )
        _cross(axes, box, name)
        return
    bar(box.y, box.height, "before", color=BEFORE, linewidth=0)
    solid, carried = box.share(box.after - box.carriers), box.share(box.carriers)
    hatch = {"hatch": "//////", "edgecolor": "#7fb0cc"} if box.grouped else {"edgecolor": AFTER}
    bar(floor - solid, solid, "after", facecolor=AFTER, linewidth=0, **hatch)
    if carried:
        bar(floor - solid - carried, carried, "carriers", color=CARRIER, linewidth=0)


def _cross(axes, box: Box, name: str) -> None:
    from matplotlib.collections import LineCollection

    x, y, half = box.x + box.width / 2, box.y + box.height / 2, min(box.width, max(box.height, 0.1)) / 2
    lines = [[(x - half, y - half), (x + half, y + half)], [(x - half, y + half), (x + half, y - half)]]
    axes.add_collection(LineCollection(lines, colors=MARKED, linewidths=0.9, zorder=4, gid=f"removed {name}"))


def _draw_glyph(axes, box: Box, name: str) -> None:
    """Round: sums, products and routes. Narrowing: pools. Widening: upsample. Square: the rest."""
    from matplotlib.patches import Ellipse, FancyBboxPatch, Polygon

    x, y, w, h = box.x, box.y, box.width, box.height
    style = {
        "facecolor": GLYPHS[box.kind],
        "edgecolor": GLYPHS[box.kind],
        "linewidth": 0.8,
        "zorder": 3,
        "gid": f"glyph {name}",
    }
    if box.removed:
        style |= {"facecolor": "white", "edgecolor": GHOST, "linestyle": (0, (2, 1.5))}
    if box.kind in ("jump", "dropout"):
        style["facecolor"] = "white"
    if box.kind in ("add", "multiply", "concat", "slice", "jump"):
        axes.add_patch(Ellipse((x + w / 2, y + h / 2), w, h, **style))
    elif box.kind in ("pool", "average", "upsample"):
        small = {"pool": 0.2, "average": 0.5, "upsample": 0.2}[box.kind] * h
        left, right = (small, 0) if box.kind == "upsample" else (0, small)
        axes.add_patch(
            Polygon([(x, y + left), (x + w, y + right), (x + w, y + h - right), (x, y + h - left)], **style)
        )
    else:
        axes.add_patch(
            FancyBboxPatch((x + 0.03, y + 0.03), w - 0.06, h - 0.06, boxstyle="round,pad=0.03", **style)
        )
    if box.layer < 0 and box.text:
        _write(
            axes,
            Label(
                box.kind,
                x + w / 2,
                y + h / 2,
                box.text,
                5.0 if box.kind == "slice" else 6.0,
                va="center_baseline",
            ),
        )
    if box.removed:
        _cross(axes, box, name)


def _draw_edge(axes, edge: Edge) -> None:
    """A line with round corners, a dot where it leaves and a tip where it arrives."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    colour = GHOST if edge.removed else EDGES[edge.kind]
    points, steps = list(edge.points), [(edge.points[0], Curve.MOVETO)]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        for px, py, code in ((ax, ay, Curve.LINETO), (cx, cy, Curve.CURVE3)):
            length = abs(px - bx) + abs(py - by)
            near = (bx + (px - bx) * min(0.05 / length, 0.5), by + (py - by) * min(0.05 / length, 0.5))
            steps += [(near, code)] if code == Curve.LINETO else [((bx, by), code), (near, code)]
    steps.append((points[-1], Curve.LINETO))
    axes.add_patch(
        PathPatch(
            Curve([p for p, _ in steps], [c for _, c in steps]),
            fill=False,
            edgecolor=colour,
            linewidth=1.0,
            zorder=2.5,
            linestyle=(0, (2, 1.5)) if edge.removed else "-",
            gid=f"edge {edge.source} {edge.target}",
        )
    )
    x, y = points[-1]
    axes.add_patch(
        Polygon(
            [(x - 0.03, y + 0.03), (x + 0.03, y + 0.03), (x, y - 0.025)],
            color=colour,
            linewidth=0,
            zorder=2.6,
        )
    )


def _write(axes, label: Label) -> None:
    bold = label.role in ("after", "same", "title", "mark", "letter", "head")
    axes.text(
        label.x,
        label.y,
        label.text,
        fontsize=label.size,
        color=INKS.get(label.role, "white"),
        ha=label.ha,
        va=label.va,
        rotation=label.rotation,
        fontweight="bold" if bold else "normal",
        linespacing=1.15,
        zorder=5,
        gid=f"text {label.role}",
    )
