"""Which way the edges of a network's picture run: its layers cut into rows, lanes under each row, tracks in
the gutters beside them.

Positions here are columns of a row, not inches: layer k of a row stands at k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...network.node import Node

COLUMNS = 42  # layers a row, about
SHIFT = 0.14  # how far from a layer's middle its edges leave (to the right) and arrive (from the left)
LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class Route:
    """The way of one edge from `source` to `target`.

    Attributes:
        lanes: under the row that it leaves and the row that it arrives in; the same lane within one row.
        side: LEFT or RIGHT, the gutter that leads from row to row; None within a row.
        track: of that gutter, counted from the rows outwards.
    """

    source: int
    target: int
    lanes: tuple[int, int]
    side: int | None
    track: int


@dataclass(frozen=True)
class Routing:
    """The ways of all edges.

    Attributes:
        rows: the layers of each row.
        place: layer -> (row, column).
        depths: how many lanes each row has.
        tracks: how many tracks the left and the right gutter have.
    """

    rows: tuple[range, ...]
    place: dict[int, tuple[int, int]]
    routes: tuple[Route, ...]
    depths: tuple[int, ...]
    tracks: tuple[int, int]

    @property
    def longest(self) -> int:
        """The length of the longest row."""
        return max(len(row) for row in self.rows)


def route(nodes: Sequence[Node], columns: int = COLUMNS) -> Routing:
    """Gives every layer its row and every edge its way; no two edges share a piece of a lane or track."""
    pairs = [(source, node.index) for node in nodes for source in reads(node)]
    rows = split(len(nodes), pairs, columns)
    longest = max(len(row) for row in rows)
    place = {layer: (r, layer - row.start) for r, row in enumerate(rows) for layer in row}
    sides: list[int | None] = []
    spans: list[dict[tuple[int, int], tuple[float, float]]] = [
        {} for _ in rows
    ]  # of each row: (edge, end) -> from, to
    for e, (source, target) in enumerate(pairs):
        (row, a), (end, b) = place[source], place[target]
        a, b = a + SHIFT, b - SHIFT
        side = None if row == end else RIGHT if a + b > longest else LEFT  # the shorter way
        sides.append(side)
        if side is None:
            spans[row][e, 0] = (a, b)
        else:
            spans[row][e, 0] = (a, longest) if side else (-1.0, a)
            spans[end][e, 1] = (b, longest) if side else (-1.0, b)
    lane = {}
    for row_spans in spans:
        lane.update(zip(row_spans, lanes(list(row_spans.values())), strict=True))
    both = [(lane[e, 0], lane.get((e, 1), lane[e, 0])) for e in range(len(pairs))]
    track, tracks = {}, []
    for side in (LEFT, RIGHT):
        edges = [e for e, at in enumerate(sides) if at == side]
        found = lanes(
            [
                tuple(place[layer][0] + at / 1000 for layer, at in zip(pairs[e], both[e], strict=True))
                for e in edges
            ],
            gap=0.0005,
        )
        track.update(zip(edges, found, strict=True))
        tracks.append(max(found, default=-1) + 1)
    routes = tuple(Route(*pairs[e], both[e], sides[e], track.get(e, 0)) for e in range(len(pairs)))
    depths = tuple(max((lane[key] for key in row_spans), default=-1) + 1 for row_spans in spans)
    return Routing(tuple(rows), place, routes, depths, tuple(tracks))


def reads(node: Node) -> list[int]:
    """The layers that get an edge to this one: all that it reads, less one reading of the layer before it;
    each once.
    """
    sources = list(node.inputs)
    if node.index - 1 in sources:
        sources.remove(node.index - 1)
    return [source for source in dict.fromkeys(sources) if source >= 0]


def split(count: int, edges: Sequence[tuple[int, int]], columns: int = COLUMNS) -> list[range]:
    """Cuts `count` layers into rows of about equal length, where few edges (source, target) cross from row to
    row.
    """
    ideal = count / math.ceil(count / columns)
    crossing = [0] * (count + 1)
    for source, target in edges:
        crossing[source + 1] += 1
        crossing[target + 1 if target < count else count] -= 1
    for k in range(1, count + 1):
        crossing[k] += crossing[k - 1]
    cost, start = [0.0] + [math.inf] * count, [0] * (count + 1)
    for end in range(1, count + 1):
        for k in range(max(0, end - columns - 4), end):
            new = cost[k] + ((end - k - ideal) / 3) ** 2 + (4 * crossing[k] if k else 0)
            if new < cost[end]:
                cost[end], start[end] = new, k
    rows, end = [], count
    while end:
        rows.append(range(start[end], end))
        end = start[end]
    return rows[::-1]


def lanes(spans: Sequence[tuple[float, float]], gap: float = 0.05) -> list[int]:
    """A lane for each span such that spans of one lane keep a gap; short spans get the first lanes."""
    taken: list[list[tuple[float, float]]] = []
    lane = [0] * len(spans)
    for i in sorted(range(len(spans)), key=lambda i: (spans[i][1] - spans[i][0], spans[i])):
        low, high = spans[i]
        free = next(
            (
                n
                for n, others in enumerate(taken)
                if all(high + gap <= a or b + gap <= low for a, b in others)
            ),
            len(taken),
        )
        if free == len(taken):
            taken.append([])
        taken[free].append((low, high))
        lane[i] = free
    return lane
