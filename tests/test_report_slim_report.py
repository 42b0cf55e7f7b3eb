"""The table and the picture of a slim run."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from darkslim.report import slim_report

pytestmark = pytest.mark.draws


def result(steps: int, chosen: int, drop: float | None = None) -> dict:
    rows = [
        {
            "step": i,
            "params": 1000 - 50 * i,
            "macs": 2_000_000 - 100_000 * i,
            "map50_sparse": 0.7 if i == 1 else None,
            "map50_pruned": 0.5,
            "map50_recovered": 0.8 - 0.01 * i,
            "choose_map50_recovered": drop and 0.75,
            "seconds": 61.4,
        }
        for i in range(1, steps + 1)
    ]
    return {
        "steps": rows,
        "chosen": chosen,
        "dense_map50": 0.8,
        "params_before": 1000,
        "macs_before": 2_000_000,
        "dense_choose_map50": drop and 0.77,
        "max_map_drop": drop,
    }


def test_the_table_marks_the_step_that_is_handed_back():
    lines = slim_report.table(result(3, 2)).splitlines()
    marked = [line for line in lines if "*" in line]
    assert (
        len(marked) == 1
        and "step 2 *" in marked[0]
        and "900" in marked[0]
        and "1.8 M" in marked[0]
        and "0.7800" in marked[0]
    )
    assert "on what chooses" not in lines[1] and "0.7000" in next(line for line in lines if "step 1" in line)
    chosen = slim_report.table(result(3, 2, 0.02)).splitlines()
    assert "on what chooses" in chosen[1] and "0.7700" in next(line for line in chosen if "dense" in line)


def test_a_step_in_a_line():
    assert slim_report.line(result(1, 1)["steps"][0], 4) == (
        "step 1 of 4: 950 parameters, 1.9 M MACs, mAP50 0.5000 pruned, 0.7900 recovered, 61 s"
    )


@pytest.mark.parametrize(
    "steps, chosen, drop", [(1, 1, None), (1, 0, 0.02), (8, 8, None), (8, 5, 0.02), (40, 40, None)]
)
def test_the_picture_can_be_opened(steps, chosen, drop, tmp_path):
    slim_report.figure(result(steps, chosen, drop), "net.cfg, recipe")(tmp_path / "x.png")
    with Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())) as image:
        image.load()
        assert image.format == "PNG" and image.width > 900
