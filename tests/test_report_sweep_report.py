"""The sweep's recommendation on rows made by hand; its table, its CSV read back, and its picture read back
from the figure.
"""

from __future__ import annotations

import csv
import io

import pytest
from PIL import Image

from darkslim.base import files
from darkslim.report.sweep_report import draw_sweep, recommend, sweep_csv, sweep_figure, sweep_table

BEFORE = {"map50": 0.9, "params": 1000, "macs": 8_000_000_000, "bytes": 4_000_000, "latency": 0.04}


def row(percent, map50, macs, folded=None, **more):
    return {
        "percent": percent,
        "map50": map50,
        "map50_folded": folded,
        "params": 500,
        "macs": macs,
        "bytes": 2_000_000,
        "latency": 0.02,
        **more,
    }


ROWS = [
    row(0.2, 0.9, 6_000_000_000),
    row(0.4, 0.89, 4_000_000_000),
    row(0.6, 0.88, 2_000_000_000),
    row(0.8, 0.5, 1_000_000_000),
]
BARE = [row(r["percent"], None, r["macs"]) for r in ROWS]


def test_the_fewest_macs_within_the_allowed_drop():
    assert recommend(ROWS, 0.9, 0.01, 0.2) == 1
    assert recommend(ROWS, 0.9, 0.02, 0.2) == 2
    assert (
        recommend([row(0.5, 0.7, 1)], 0.8, 0.1, 0.2) == 0
    )  # 0.8 - 0.1 is a little more than 0.7 in floating point
    assert recommend(ROWS, 0.9, 0.5, 0.2) == 3
    assert recommend(ROWS, 0.9, 0.0, 0.2) == 0
    assert recommend(ROWS, 0.95, 0.01, 0.9) is None  # mAP decides, not `safe`
    assert recommend(ROWS[::-1], 0.9, 0.02, 0.2) == 1
    assert (
        recommend([row(0.5, None, 1), row(0.3, 0.9, 2)], 0.9, 0.1, 0.9) == 1
    )  # a row without mAP is not taken on trust


def test_ties_go_to_the_lower_percent():
    assert recommend([row(0.6, 0.9, 5), row(0.3, 0.89, 5), row(0.4, 0.9, 5)], 0.9, 0.1, 1) == 1


def test_without_map_the_safe_share_decides():
    assert recommend(BARE, None, 0.02, 0.65) == 2
    assert recommend(BARE, None, 0.02, 0.6) == 2
    assert recommend(BARE, 0.9, 0.02, 0.5) == 1
    assert recommend(ROWS, None, 0.02, 0.5) == 1  # without the dense value mAP says nothing
    assert recommend(BARE, None, 0.02, 0.1) is None
    assert recommend([row(0.1 + 0.2, None, 1)], None, 0.02, 0.3) == 0
    assert recommend([], None, 0.02, 1) is None and recommend([], 0.9, 0.02, 1) is None


def test_the_table():
    lines = sweep_table(ROWS, 2).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert cells[0] == ["", "cut", "mAP50", "parameters", "MACs", "size", "latency, batch 1"]
    assert cells[3] == ["recommended", "60%", "0.8800", "500", "2.000 G", "2.00 MB", "20.0 ms"]
    assert [c[0] for c in cells[1:]] == ["", "", "recommended", ""]
    assert "recommended" not in sweep_table(ROWS, None) and "mAP" not in sweep_table(BARE, 0)
    recalibrated = sweep_table([row(0.125, 0.8, 1, folded=0.7), row(0.25, 0.8, 1)], None)
    assert (
        "before repair" in recalibrated
        and "0.7000" in recalibrated
        and "12.5%" in recalibrated
        and " - |" in recalibrated
    )


def test_the_csv_is_read_back_as_it_was():
    rows = [
        row(0.1, 0.123456789012345, 5, folded=0.05, latency=1 / 3),
        row(0.7, None, 2_000_000_000, latency=None),
    ]
    data = sweep_csv(rows, 1)
    assert data.endswith(b"\r\n") and data.count(b"\n") == data.count(b"\r\n") == 3
    found = list(csv.DictReader(io.StringIO(data.decode("ascii"), newline="")))
    assert list(found[0]) == [
        "percent",
        "map50_folded",
        "map50",
        "params",
        "macs",
        "bytes",
        "latency",
        "recommended",
    ]
    read = [{key: float(value) if value else None for key, value in line.items()} for line in found]
    assert read == [{**rows[0], "recommended": 0}, {**rows[1], "recommended": 1}]
    assert [line["recommended"] for line in found] == ["0", "1"] and found[1]["macs"] == "2000000000"
    assert b",1\r\n" not in sweep_csv(ROWS, None)


def lines(axes) -> dict:
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_the_picture_with_map():
    rows = [dict(r, map50_folded=r["map50"] - 0.1) for r in ROWS[::-1]]  # any order
    figure = draw_sweep(rows, 1, BEFORE, "net.cfg", allowed=0.02)
    top, bottom = figure.axes
    drawn = lines(top)
    assert list(drawn["after repair"].get_xdata()) == [20, 40, 60, 80]
    assert list(drawn["after repair"].get_ydata()) == [0.9, 0.89, 0.88, 0.5]
    assert drawn["after the cut, before repair"].get_ydata()[3] == pytest.approx(0.4)
    assert set(drawn["before the cut: 0.9000"].get_ydata()) == {0.9}
    (band,) = [patch for patch in top.patches if patch.get_label() == "allowed drop: 0.02"]
    assert (band.get_y(), band.get_height()) == (pytest.approx(0.88), pytest.approx(0.02))
    shares = lines(bottom)
    assert set(shares) == {"parameters", "MACs", "latency"}
    assert list(shares["MACs"].get_ydata()) == pytest.approx([75, 50, 25, 12.5])
    rings = {
        line.get_gid(): (line.get_xdata()[0], line.get_ydata()[0])
        for axes in (top, bottom)
        for line in axes.lines
        if line.get_gid()
    }
    assert rings == {
        "recommended map50": (60, 0.88),
        "recommended params": (60, 50),
        "recommended macs": (60, 25),
        "recommended latency": (60, 50),
    }
    (note,) = [text for text in top.texts if text.get_gid() == "recommended"]
    assert note.get_text() == "recommended: cut 60%, mAP50 0.8800\nparameters 50%, MACs 25%, latency 50%"


@pytest.mark.parametrize("chosen", [0, 1, 3, None])
def test_the_note_and_the_title_lie_apart_and_in_the_picture(chosen):
    for rows in (ROWS, BARE):
        figure = draw_sweep(rows, chosen, BEFORE, "a very long name of a network.cfg " * 9, allowed=0.02)
        figure.canvas.draw()
        width, height = figure.canvas.get_width_height()
        axes = figure.axes[0]
        words = [t for t in [*axes.texts, axes.title, axes._left_title] if t.get_text()]
        assert len(words) == (1 if chosen is None else 2)
        spans = [t.get_window_extent().extents for t in words]
        assert all(s[0] >= 0 and s[1] >= 0 and s[2] <= width and s[3] <= height for s in spans)
        if chosen is not None:
            assert (
                spans[0][3] <= spans[1][1] and spans[0][1] >= axes.get_window_extent().y1
            )  # panel, note, title


def test_the_picture_without_map_has_the_sizes_only(tmp_path):
    rows = [dict(r, latency=None) for r in BARE]
    figure = draw_sweep(rows, 2, {**BEFORE, "map50": None}, "net.cfg")
    (panel,) = figure.axes
    assert set(lines(panel)) == {"parameters", "MACs"}
    assert panel.texts[0].get_text() == "recommended: cut 60%\nparameters 50%, MACs 25%"
    files.save(tmp_path / "sweep.png", sweep_figure(rows, 2, {**BEFORE, "map50": None}, "net.cfg"))
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.format == "PNG" and picture.size == (988, 572)


def test_one_row_and_no_recommendation(tmp_path):
    files.save(tmp_path / "sweep.png", sweep_figure(ROWS[:1], None, BEFORE, "net.cfg", 0.02))
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (988, 962)
    assert not any(line.get_gid() for axes in draw_sweep(ROWS, None, BEFORE, "").axes for line in axes.lines)
