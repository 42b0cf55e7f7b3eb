"""Where everything in the picture of a network goes: from graphs to places, in inches, y downwards. Nothing
is drawn here.

Layers stand in rows on a baseline, a convolution as a bar as high as its channels. What a layer reads other
than the layer before it becomes an edge under the baseline (network_routing.py finds its way).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...base.errors import RequestError
from ...network.graph import Graph
from ...network.node import HEADS, Node
from ..figures import text_width
from .routing import COLUMNS, RIGHT, SHIFT, Route, route

MOST_LAYERS = 1200  # what is beyond them is not drawn, and the picture says so
BAR, LEAST_BAR, LANE, TRACK = (
    1.5,
    0.9,
    0.085,
    0.09,
)  # the highest bar; a row's least; between two lanes; two tracks of a gutter
STAGE_LABEL, HEADROOM, NUMBER, MARK = 0.28, 0.25, 0.13, 0.14  # heights of the lines of text in a row
GAP, MARGIN = 0.2, 0.42
LEAST_WIDTH = 7.0


@dataclass(frozen=True)
class Box:
    """A layer. `x`, `y` is the upper left corner.

    Attributes:
        kind: "conv", "add", "multiply", "concat", "slice", "jump", "pool", "average", "upsample", "reorg",
            "dropout", "head" or "other".
        text: what stands in the glyph.
        before, after: channels; after is 0 for what was removed. Of those after, `carriers` are constants.
        grouped: a convolution with groups.
        removed: not in the network after.
    """

    layer: int
    kind: str
    text: str
    x: float
    y: float
    width: float
    height: float
    before: int
    after: int
    carriers: int
    grouped: bool
    removed: bool

    def share(self, channels: int) -> float:
        """The height of so many of the bar's channels."""
        return self.height * channels / self.before


@dataclass(frozen=True)
class Edge:
    """What `target` reads from `source` past the layers between them: the corners of a line that leaves
    `source` and ends at `target`.

    `kind` is "shortcut", "product" or "route".
    """

    source: int
    target: int
    kind: str
    points: tuple[tuple[float, float], ...]
    removed: bool


@dataclass(frozen=True)
class Stage:
    """Neighbours in a row that make maps of one size; `level` is the binary logarithm of their stride,
    infinite for a single pixel."""

    first: int
    last: int
    x: float
    y: float
    width: float
    height: float
    level: float


@dataclass(frozen=True)
class Label:
    """Text; `role` says what it is, `ha` and `va` which point of it lies at (x, y)."""

    role: str
    x: float
    y: float
    text: str
    size: float
    ha: str = "center"
    va: str = "top"
    rotation: int = 0


@dataclass(frozen=True)
class Layout:
    """A whole picture.

    Attributes:
        width: of the canvas.
        size: of the text, in points.
        boxes: one a layer, in their order.
        chain: (x, y, x, y) of the lines between layers that follow each other.
        bottom: where the rows end.
    """

    width: float
    size: float
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    stages: tuple[Stage, ...]
    chain: tuple[tuple[float, float, float, float], ...]
    labels: tuple[Label, ...]
    bottom: float


def glyph(node: Node) -> tuple[str, str]:
    """(kind of box, text in it)."""
    kind, opts = node.type, node.opts
    if kind in HEADS:
        return "head", f"{kind} {node.shape[2]}×{node.shape[1]}"
    if kind == "route":
        return (
            ("slice", f"1/{opts['groups']}")
            if opts["groups"] > 1
            else ("concat", "c")
            if len(node.inputs) > 1
            else ("jump", "")
        )
    return {
        "convolutional": ("conv", ""),
        "shortcut": ("add", "+"),
        "sam": ("multiply", "×"),
        "scale_channels": ("multiply", "×"),
        "maxpool": ("pool", str(opts.get("size", ""))),
        "avgpool": ("average", ""),
        "upsample": ("upsample", str(opts.get("stride", ""))),
        "reorg": ("reorg", ""),
        "reorg3d": ("reorg", ""),
        "dropout": ("dropout", ""),
    }.get(kind, ("other", "?"))


def lay_out(
    before: Graph,
    after: Graph,
    numbers: Mapping[int, int] | None = None,
    carriers: Mapping[int, int] | None = None,
    marks: Mapping[int, str] | None = None,
    top: float = 0.0,
    columns: int = COLUMNS,
) -> Layout:
    """Places every layer of `before`.

    Args:
        numbers: layer of `before` -> layer of `after`; None: the same numbers.
        carriers: layer of `before` -> how many of its channels after are constants.
        marks: layer of `before` -> one or two letters under its number.
        top: where the rows begin.

    Raises:
        RequestError: `numbers` does not lead from `before` to `after`.
    """
    if numbers is None:
        numbers = {node.index: node.index for node in before.nodes}
    for old, new in numbers.items():
        if (
            not (0 <= old < len(before.nodes) and 0 <= new < len(after.nodes))
            or before.nodes[old].type != after.nodes[new].type
        ):
            raise RequestError(
                "network picture",
                f"layer {old} cannot be layer {new} of the network after",
                "layers of one type",
                "give the numbers that removed blocks leave",
            )
    return _Plan(before, after, numbers, carriers or {}, marks or {}, top, columns).layout()


class _Plan:
    """Works a layout out, from rows over lanes and tracks to places."""

    def __init__(self, before, after, numbers, carriers, marks, top, columns):
        self.after, self.numbers, self.carriers, self.marks = after, numbers, carriers, marks
        self.nodes = before.nodes[:MOST_LAYERS]
        self.image = before.input_shape
        self.routing = route(self.nodes, columns)
        self.place, longest = self.routing.place, self.routing.longest
        self.renumbered = any(old != new for old, new in numbers.items())
        left, right = (MARGIN + TRACK * count for count in self.routing.tracks)
        self.column = min(max((LEAST_WIDTH - left - right) / longest, 0.29), 0.6)
        self.width = max(LEAST_WIDTH, left + right + self.column * longest)
        self.left = left + (self.width - left - right - self.column * longest) / 2
        self.right = self.left + self.column * longest
        self.size = 6.0 if self.column < 0.34 else 7.0
        most = max((n.shape[0] for n in self.nodes if n.type == "convolutional"), default=1)
        self.inch = BAR / most  # a channel
        self.text = NUMBER * (2 if self.renumbered else 1) + (MARK if self.marks else 0)  # under the baseline
        self.base, self.top, y = [], [], top
        for row, count in zip(self.routing.rows, self.routing.depths, strict=True):
            widest = max(
                (self.nodes[i].shape[0] for i in row if self.nodes[i].type == "convolutional"), default=0
            )
            self.top.append(y)
            self.base.append(y + STAGE_LABEL + HEADROOM + max(widest * self.inch, LEAST_BAR))
            y = self.base[-1] + self.text + 0.06 + LANE * (count + 1 if count else 0) + GAP
        self.bottom = y

    def x(self, layer: int, shift: float = 0.0) -> float:
        return self.left + self.column * (self.place[layer][1] + 0.5 + shift)

    def y(self, layer: int) -> float:
        return self.base[self.place[layer][0]]

    def layout(self) -> Layout:
        boxes = tuple(self._box(node) for node in self.nodes)
        stages, labels = self._stages()
        for box in boxes:
            labels += self._labels(box)
        channels, height, width = self.image
        labels.append(
            Label(
                "image",
                self.left - 0.13,
                self.base[0] - 0.05,
                f"{width}×{height}×{channels}",
                self.size,
                va="bottom",
                rotation=90,
            )
        )
        edges = tuple(self._edge(way) for way in self.routing.routes)
        return Layout(self.width, self.size, boxes, edges, stages, self._chain(), tuple(labels), self.bottom)

    def _box(self, node: Node) -> Box:
        kind, text = glyph(node)
        new = self.numbers.get(node.index)
        after = 0 if new is None else self.after.nodes[new].shape[0]
        if kind == "conv":
            width, height = min(0.72 * self.column, 0.32), max(node.shape[0] * self.inch, 1 / 72)
        elif kind == "head":
            width, height = 0.2, text_width(text, self.size) + 0.12
        else:
            width = height = 0.2
        carriers = self.carriers.get(node.index, 0) if kind == "conv" else 0
        return Box(
            node.index,
            kind,
            text,
            self.x(node.index) - width / 2,
            self.y(node.index) - height,
            width,
            height,
            node.shape[0],
            after,
            carriers,
            kind == "conv" and node.opts["groups"] > 1,
            new is None,
        )

    def _labels(self, box: Box) -> list[Label]:
        """Widths over a bar, the text in a glyph, and under the baseline the numbers and the mark."""
        x, y, line = self.x(box.layer), self.y(box.layer), self.size / 72 * 1.25
        labels = []
        if box.kind == "conv":
            over = box.y - 0.02
            if box.removed or box.after == box.before:
                labels.append(
                    Label(
                        "removed" if box.removed else "same",
                        x,
                        over,
                        str(box.before),
                        self.size,
                        va="baseline",
                    )
                )
            else:
                labels += [
                    Label("after", x, over, str(box.after), self.size, va="baseline"),
                    Label("before", x, over - line, str(box.before), self.size, va="baseline"),
                ]
        elif box.text:
            labels.append(
                Label(
                    box.kind,
                    x,
                    box.y + box.height / 2,
                    box.text,
                    self.size if box.kind != "slice" else 5.0,
                    va="center_baseline" if box.kind != "head" else "center",
                    rotation=90 if box.kind == "head" else 0,
                )
            )
        y += 0.03
        labels.append(Label("number", x, y, str(box.layer), self.size))
        if self.renumbered:
            y += NUMBER
            labels.append(
                Label("renumbered", x, y, "–" if box.removed else str(self.numbers[box.layer]), self.size)
            )
        if box.layer in self.marks and not box.removed:
            labels.append(Label("mark", x, y + NUMBER, self.marks[box.layer], self.size))
        return labels

    def _stages(self) -> tuple[tuple[Stage, ...], list[Label]]:
        stages, labels = [], []
        for r, row in enumerate(self.routing.rows):
            first = row.start
            for layer in row:
                if layer + 1 < row.stop and self.nodes[layer + 1].shape[1:] == self.nodes[layer].shape[1:]:
                    continue
                node, x = self.nodes[first], self.left + self.column * (first - row.start)
                width, y = self.column * (layer + 1 - first), self.top[r]
                level = math.inf if node.shape[1:] == (1, 1) else math.log2(float(node.stride))
                stages.append(Stage(first, layer, x, y, width, self.base[r] - y, level))
                text = _stage_text(node, self.size, width - 0.05)
                if text:
                    labels.append(Label("stage", x + width / 2, y + 0.03, text, self.size))
                first = layer + 1
        return tuple(stages), labels

    def _chain(self) -> tuple[tuple[float, float, float, float], ...]:
        """Lines along the baseline from each layer to the next that reads it; over the end of a row as two
        stubs.
        """
        lines = []
        for node in self.nodes:
            if node.index - 1 not in node.inputs:
                continue
            x, y = self.x(node.index), self.y(node.index)
            if self.place[node.index][1]:
                lines.append((self.x(node.index - 1), y, x, y))
                continue
            lines.append((self.left - 0.16, y, x, y))
            if node.index:
                last = self.y(node.index - 1)
                lines.append((self.x(node.index - 1), last, self.x(node.index - 1, 0.5) + 0.16, last))
        return tuple(lines)

    def _edge(self, way: Route) -> Edge:
        source, target = way.source, way.target
        kind = {"add": "shortcut", "multiply": "product"}.get(glyph(self.nodes[target])[0], "route")
        xs, xt = self.x(source, SHIFT), self.x(target, -SHIFT)
        ports = [self.y(layer) + self.text + 0.05 for layer in (source, target)]
        run = [port + LANE * (lane + 1) for port, lane in zip(ports, way.lanes, strict=True)]
        if way.side is None:
            middle = [(xs, run[0]), (xt, run[0])]
        else:
            shift = 0.3 + TRACK * way.track
            gutter = self.right + shift if way.side == RIGHT else self.left - shift
            middle = [(xs, run[0]), (gutter, run[0]), (gutter, run[1]), (xt, run[1])]
        return Edge(
            source, target, kind, ((xs, ports[0]), *middle, (xt, ports[1])), target not in self.numbers
        )


def _stage_text(node: Node, size: float, width: float) -> str:
    """The size and the stride of a stage's maps, as much of it as fits."""
    _, h, w = node.shape
    grid = f"{w}×{h}"
    stride = f"{float(node.stride):g}"
    choices = (
        [grid]
        if (h, w) == (1, 1)
        else [f"{grid}  stride {stride}", f"{grid}\nstride {stride}", f"{grid}\n/{stride}", f"/{stride}"]
    )
    return next(
        (text for text in choices if max(text_width(line, size) for line in text.split("\n")) <= width), ""
    )
