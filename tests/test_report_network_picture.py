"""The picture of a network: its layout is worked out by hand or held to rules, and what is drawn is read back
from the figure.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from PIL import Image
from random_cfgs import random_cfg

from darkslim.base import files
from darkslim.base.errors import RequestError
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.graph import Graph
from darkslim.report.figures import fit, text_width
from darkslim.report.network_picture import layout as network_layout
from darkslim.report.network_picture import picture as network
from darkslim.report.network_picture.layout import lay_out
from darkslim.report.network_picture.routing import lanes, reads, route, split

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride={}\npad=1\nactivation=leaky\n"
HEAD = (
    "[convolutional]\nfilters=14\nsize=1\nactivation=linear\n[yolo]\nmask=0,1\nanchors=4,5, "
    "10,12\nclasses=2\nnum=2\n"
)
NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"


def residual(first: int = 8, inner: int = 4, block: bool = True) -> str:
    """0 conv, 1-3 a residual block, 4-6 another (if `block`), 7 a pool, 8 a slice, 9 a grouped conv, 10 up,
    11 a route, 12, 13 a head.
    """
    one = CONV.format(inner, 1, 1) + CONV.format(first, 3, 1) + "[shortcut]\nfrom=-3\nactivation=linear\n"
    return (
        NET
        + CONV.format(first, 3, 2)
        + one * (2 if block else 1)
        + "[maxpool]\nsize=2\nstride=2\n"
        + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
        + CONV.format(first, 3, 1)
        + "groups=2\n"
        + "[upsample]\nstride=2\n"
        + f"[route]\nlayers=-1,{6 if block else 3}\n"
        + HEAD
    )


def graph(text: str) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Graph(parse_cfg(text, "net.cfg"))


def graphs(root):
    return [graph(random_cfg(seed)) for seed in range(20)] + [
        Graph(read_cfg(root / "config" / name))
        for name in ("yolov3-hand.cfg", "yolov3-tiny-bccd.cfg", "yolov3-spp-hand.cfg")
    ]


def artists(figure, words: str) -> list:
    (axes,) = figure.axes
    return [
        a for a in [*axes.patches, *axes.collections, *axes.texts] if re.fullmatch(words, a.get_gid() or "")
    ]


def segments(edge):
    return list(zip(edge.points, edge.points[1:], strict=False))


# ------------------------------------------------------------------------------------------------------------
# ------------- layout


def test_a_small_network_by_hand():
    before = graph(residual())
    after = graph(residual(first=4, inner=1))
    layout = lay_out(before, after, carriers={1: 1}, marks={12: "a"})
    assert [box.kind for box in layout.boxes] == [
        "conv",
        "conv",
        "conv",
        "add",
        "conv",
        "conv",
        "add",
        "pool",
        "slice",
        "conv",
        "upsample",
        "concat",
        "conv",
        "head",
    ]
    assert [box.text for box in layout.boxes if box.text] == ["+", "+", "2", "1/2", "2", "c", "yolo 32×16"]
    assert [(e.source, e.target, e.kind) for e in layout.edges] == [
        (0, 3, "shortcut"),
        (3, 6, "shortcut"),
        (6, 11, "route"),
    ]
    assert (
        len({e.points[1][1] for e in layout.edges}) == 1
    )  # one lane is enough: each begins right of where the one before it ends
    assert [(s.first, s.last, s.level) for s in layout.stages] == [(0, 6, 1), (7, 9, 2), (10, 13, 1)]
    stages = [label.text for label in layout.labels if label.role == "stage"]
    assert stages == ["32×16  stride 2", "16×8  stride 4", "32×16  stride 2"]
    assert [box.layer for box in layout.boxes if box.grouped] == [9]
    assert [label.text for label in layout.labels if label.role == "image"] == ["64×32×3"]
    first, second = layout.boxes[:2]
    assert (first.before, first.after, second.before, second.after, second.carriers) == (8, 4, 4, 1, 1)
    assert second.height == pytest.approx(first.height / 2) and first.share(4) == pytest.approx(second.height)
    assert layout.boxes[12].height == pytest.approx(network_layout.BAR)  # the widest, 14 channels
    marks = [label for label in layout.labels if label.role == "mark"]
    assert [(m.text, m.x) for m in marks] == [
        ("a", pytest.approx(layout.boxes[12].x + layout.boxes[12].width / 2))
    ]


@pytest.mark.parametrize("columns", [5, 42])
def test_everything_lies_in_the_canvas_and_nothing_on_anything_else(root, columns):
    for g in graphs(root):
        layout = lay_out(g, g, columns=columns)
        assert [box.layer for box in layout.boxes] == list(range(len(g.nodes)))
        corners = np.array([(b.x, b.y, b.x + b.width, b.y + b.height) for b in layout.boxes])
        assert (
            corners.min() >= 0
            and corners[:, 2].max() <= layout.width
            and corners[:, 3].max() <= layout.bottom
        )
        apart = (
            (corners[:, None, :2] >= corners[None, :, 2:]) | (corners[:, None, 2:] <= corners[None, :, :2])
        ).any(-1)
        assert (apart | np.eye(len(corners), dtype=bool)).all()
        for edge in layout.edges:
            for (ax, ay), (bx, by) in segments(edge):
                assert ax == bx or ay == by
                assert (
                    0 < min(ax, bx)
                    and max(ax, bx) < layout.width
                    and 0 < min(ay, by)
                    and max(ay, by) < layout.bottom
                )
                through = (
                    (corners[:, 0] < max(ax, bx))
                    & (corners[:, 2] > min(ax, bx))
                    & (corners[:, 1] < max(ay, by))
                    & (corners[:, 3] > min(ay, by))
                )
                assert not through.any(), (edge, np.flatnonzero(through))


@pytest.mark.parametrize("columns", [5, 42])
def test_every_input_has_its_line_and_no_two_lines_lie_on_each_other(root, columns):
    for g in graphs(root):
        layout = lay_out(g, g, columns=columns)
        wanted = [
            (source, node.index)
            for node in g.nodes
            for source in dict.fromkeys(node.inputs)
            if source not in (node.index - 1, -1)
        ]
        drawn = [(e.source, e.target) for e in layout.edges]
        assert set(wanted) <= set(drawn) and len(drawn) == len(set(drawn))
        assert all(
            a == b - 1 and g.nodes[b].inputs.count(a) > 1 for a, b in set(drawn) - set(wanted)
        )  # the layer before, read twice
        shortcuts = {n.index for n in g.nodes if n.type == "shortcut"}
        assert {e.target for e in layout.edges if e.kind == "shortcut"} == shortcuts
        for e in layout.edges:  # it starts under its source and ends under its target
            for layer, (x, y) in ((e.source, e.points[0]), (e.target, e.points[-1])):
                box = layout.boxes[layer]
                assert box.x - 0.1 < x < box.x + box.width + 0.1 and 0 < y - box.y - box.height < 0.6
        pieces = [(e, piece) for e in layout.edges for piece in segments(e)]
        for i, (e, ((ax, ay), (bx, by))) in enumerate(pieces):
            for f, ((cx, cy), (dx, dy)) in pieces[:i]:
                leaving, arriving = (
                    e.source == f.source and ax == e.points[0][0],
                    e.target == f.target and ax == e.points[-1][0],
                )
                if e is f or (ax == bx and (leaving or arriving)):
                    continue
                if ax == bx == cx == dx:
                    assert max(ay, by) <= min(cy, dy) or max(cy, dy) <= min(ay, by), (e, f)
                elif ay == by == cy == dy:
                    assert max(ax, bx) < min(cx, dx) or max(cx, dx) < min(ax, bx), (e, f)


def test_the_widths_of_the_highest_bar_stay_under_the_stages_label():
    layout = lay_out(graph(NET + CONV.format(40, 3, 1) + HEAD), graph(NET + CONV.format(20, 3, 1) + HEAD))
    (over,) = [label for label in layout.labels if label.role == "before"]
    (stage,) = [label for label in layout.labels if label.role == "stage"]
    assert over.y - over.size / 72 > stage.y + 2 * stage.size / 72  # its label may have two lines


def test_a_chain_joins_what_follows_each_other():
    g = graph(NET + CONV.format(4, 3, 1) * 3 + HEAD + "[route]\nlayers=1\n" + HEAD)
    layout = lay_out(g, g)
    middle = [box.x + box.width / 2 for box in layout.boxes]
    chain = {(round(a, 6), round(c, 6)) for a, _, c, _ in layout.chain}
    assert chain == {(round(middle[0] - 0.5 * 0.6 - 0.16, 6), round(middle[0], 6))} | {
        (round(middle[i], 6), round(middle[i + 1], 6)) for i in range(7) if i != 4
    }  # from the head (4) nothing leads to the route (5)


def test_layers_are_split_where_few_edges_cross():
    assert split(10, [], 10) == [range(0, 10)]
    assert [len(row) for row in split(90, [], 42)] == [30, 30, 30]
    assert split(20, [(8, 12)], 12) == [range(0, 8), range(8, 20)]  # at 10 the edge would cross
    block = CONV.format(2, 1, 1) + CONV.format(4, 3, 1) + "[shortcut]\nfrom=-3\n"
    g = graph(NET + CONV.format(4, 3, 1) + block * 6 + CONV.format(4, 3, 2) + block * 7 + HEAD)
    edges = [(a, n.index) for n in g.nodes for a in reads(n)]
    assert [row.start for row in split(len(g.nodes), edges, 24)] == [
        0,
        19,
    ]  # 43 layers; at 19 a new stage begins, and no shortcut crosses


def test_lanes_by_hand():
    assert lanes([(0, 3), (3.1, 6)]) == [0, 0]
    assert lanes([(0, 10), (1, 3), (2, 5), (6, 7)]) == [2, 0, 1, 0]
    assert lanes([]) == []


def test_an_edge_takes_the_nearer_gutter():
    conv = CONV.format(4, 3, 1)
    g = graph(NET + conv * 15 + "[route]\nlayers=2\n" + conv + "[route]\nlayers=5\n" + HEAD)
    routing = route(g.nodes, 10)
    assert routing.rows == (range(0, 10), range(10, 20)) and routing.tracks == (1, 1)
    assert [(way.source, way.target, way.side) for way in routing.routes] == [(2, 15, 0), (5, 17, 1)]


# ------------------------------------------------------------------------------------------------------------
# ------- removed blocks

NUMBERS = {layer: layer if layer < 4 else layer - 3 for layer in range(14) if layer not in (4, 5, 6)}


def test_removed_layers_are_crossed_out_and_the_others_carry_their_new_numbers():
    before, after = graph(residual()), graph(residual(block=False))
    layout = lay_out(before, after, NUMBERS)
    assert [box.layer for box in layout.boxes if box.removed] == [4, 5, 6]
    assert [(e.source, e.target) for e in layout.edges if e.removed] == [(3, 6)]
    new = [label.text for label in layout.labels if label.role == "renumbered"]
    assert new == ["0", "1", "2", "3", "–", "–", "–", "4", "5", "6", "7", "8", "9", "10"]
    figure = network.network_figure(before, after, "a block less", NUMBERS)
    assert sorted(a.get_gid() for a in artists(figure, r"removed \d+")) == [
        "removed 4",
        "removed 5",
        "removed 6",
    ]
    assert {a.get_gid() for a in artists(figure, r"after \d+")} == {
        f"after {layer}" for layer in (0, 1, 2, 9, 12)
    }
    assert "removed" in {a.get_text() for a in artists(figure, "text legend")}


@pytest.mark.parametrize("numbers", [{0: 99}, {3: 2}, {99: 0}, None])
def test_numbers_that_do_not_fit_are_refused(numbers):
    with pytest.raises(RequestError, match="network picture"):
        network.network_picture(graph(residual()), graph(residual(block=False)), "", numbers)


# ------------------------------------------------------------------------------------------------------------
# ------------- drawing


def test_the_bars_of_the_figure_are_the_widths():
    before, after = graph(residual()), graph(residual(first=4, inner=2))
    figure = network.network_figure(
        before, after, "net.cfg", carriers={1: 1, 2: 2}, protected={12: "feeds [yolo] layer 13"}
    )
    heights = {
        kind: {int(a.get_gid().split()[1]): a.get_height() for a in artists(figure, rf"{kind} \d+")}
        for kind in ("before", "after", "carriers")
    }
    channel = network_layout.BAR / 14
    assert heights["before"] == pytest.approx(
        {k: v * channel for k, v in {0: 8, 1: 4, 2: 8, 4: 4, 5: 8, 9: 8, 12: 14}.items()}
    )
    assert heights["after"] == pytest.approx(
        {k: v * channel for k, v in {0: 4, 1: 1, 2: 2, 4: 2, 5: 4, 9: 4, 12: 14}.items()}
    )
    assert heights["carriers"] == pytest.approx({1: channel, 2: 2 * channel})
    assert len(artists(figure, r"glyph \d+")) == 7 and len(artists(figure, r"edge \d+ \d+")) == 3
    words = [a.get_text() for a in artists(figure, "text .*")]
    assert "not cut: feeds [yolo] layer 13" in words and "channels 54 → 34" in next(
        w for w in words if w.startswith("channels 5")
    )
    assert [a.get_text() for a in artists(figure, "text after")] == ["4", "2", "4", "2", "4", "4"]
    assert [a.get_text() for a in artists(figure, "text same")] == ["14"]


@pytest.mark.parametrize("name", ["yolov3-hand.cfg", "yolov3-tiny-bccd.cfg", "small"])
def test_no_text_lies_on_other_text_or_on_a_bar(root, name):
    if name == "small":
        before, after, numbers = graph(residual()), graph(residual(block=False)), NUMBERS
    else:
        before = Graph(read_cfg(root / "config" / name))
        after = graph(
            "\n".join(
                re.sub(
                    r"^filters=(\d\d+0|32|64|512|128|256|1024|16)$",
                    lambda m: f"filters={int(m[1]) - 1}",
                    line,
                )
                for line in (root / "config" / name).read_text().splitlines()
            )
        )
        numbers = None
    protected = {
        n.index: f"because of {n.index % 15}"
        for n in before.nodes
        if n.type == "convolutional" and n.index % 2
    }
    figure = network.network_figure(before, after, name * 30, numbers, dict.fromkeys(protected, 1), protected)
    figure.canvas.draw()
    texts = artists(figure, "text .*")
    boxes = np.array([t.get_window_extent().extents for t in texts])
    assert boxes.min() >= 0 and (boxes[:, 2:].max(0) <= figure.canvas.get_width_height()).all()

    def clash(a, b):
        return (
            (np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])) > 0.75
        ).all(-1)

    over = clash(boxes, boxes) & ~np.eye(len(boxes), dtype=bool)
    assert not over.any(), [(texts[i].get_text(), texts[j].get_text()) for i, j in np.argwhere(over)[:5]]
    widths = np.array(
        [
            t.get_gid() in ("text before", "text after", "text same", "text number", "text stage")
            for t in texts
        ]
    )
    bars = np.array([a.get_window_extent().extents for a in artists(figure, r"(before|after|glyph) \d+")])
    over = clash(boxes[widths], bars)
    assert not over.any(), [np.array(texts)[widths][i].get_text() for i, _ in np.argwhere(over)[:5]]


def test_many_reasons_are_counted_and_letters_go_on_after_z():
    before = graph(NET + CONV.format(4, 3, 1) * 30 + HEAD)
    figure = network.network_figure(
        before, before, "", protected={layer: f"reason {layer}" for layer in range(30)}
    )
    notes = [a.get_text() for a in artists(figure, "text note")]
    assert len(notes) == network.MOST_REASONS + 1 and notes[-1] == "not cut: 18 more reasons"
    marks = [a.get_text() for a in artists(figure, "text mark")][:30]
    assert marks[:3] == ["a", "b", "c"] and marks[25:] == ["z", "aa", "ab", "ac", "ad"]


def test_a_network_beyond_the_limit_is_cut_short_and_the_title_says_so(monkeypatch):
    monkeypatch.setattr(network_layout, "MOST_LAYERS", 9)
    monkeypatch.setattr(network, "MOST_LAYERS", 9)
    before = graph(residual())
    figure = network.network_figure(before, before, "net.cfg")
    assert len(artists(figure, r"(before|glyph) \d+")) == 9
    assert [a.get_text() for a in artists(figure, "text title")] == ["net.cfg (the first 9 of 14 layers)"]


def test_the_file(tmp_path):
    before, after = graph(residual()), graph(residual(first=4))
    files.save(tmp_path / "network.png", network.network_picture(before, after, "net.cfg"))
    figure = network.network_figure(before, after, "net.cfg")
    with Image.open(tmp_path / "network.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == tuple(int(inches * 150) for inches in figure.get_size_inches())
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(0x2A, 0x6F, 0x97), (0xC3, 0xCE, 0xDB)} <= colours


def test_text_is_measured_and_cut():
    assert text_width("1024", 12) == pytest.approx(2 * text_width("10", 12), rel=0.1)
    assert text_width("1024", 12) == pytest.approx(2 * text_width("1024", 6), rel=0.05)
    assert fit("short", 8, 5) == "short"
    cut = fit("a long sentence that does not fit", 8, 1.0)
    assert cut.endswith("…") and cut[:-1] == "a long sentence that does not fit"[: len(cut) - 1]
    assert text_width(cut, 8) <= 1.0 < text_width(cut[:-1] + "xx…", 8)
