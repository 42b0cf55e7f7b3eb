"""Difficult objects and crowds: kept beside the labels, counted neither as found nor as missed."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from commands import make_bench, perform, picture, write
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from darkslim import evaluation
from darkslim.data.datafile import read_data
from darkslim.data.dataset import ListDataset
from darkslim.evaluation.matching import on_ignored


def test_by_hand():
    ignored = np.array([[0, 0, 10, 10, 1.0]])
    found = np.array(
        [
            [0, 0, 10, 10, 0.9, 1],
            [2, 2, 4, 4, 0.8, 1],  # wholly inside
            [5, 0, 15, 10, 0.7, 1],  # half
            [6, 0, 16, 10, 0.7, 1],  # less
            [2, 2, 4, 4, 0.8, 0],  # another class
        ]
    )
    assert on_ignored(found, ignored).tolist() == [True, True, True, False, False]
    assert on_ignored(found[:0], ignored).shape == (0,) and not on_ignored(found, ignored[:0]).any()
    truths = [np.array([[20, 20, 30, 30, 1.0]])]
    right = np.array([[20, 20, 30, 30, 0.5, 1]])
    plain = evaluation.score([np.concatenate([found[:2], right])], truths)
    with_crowd = evaluation.score([np.concatenate([found[:2], right])], truths, ignored=[ignored])
    assert (
        with_crowd.map50 == 1.0
        and plain.map50 == pytest.approx(1 / 3)
        and with_crowd.map == pytest.approx(1.0)
    )
    on_a_truth = evaluation.score([right], truths, ignored=[truths[0]])
    assert on_a_truth.map50 == 1.0  # what finds a truth counts, whatever else lies there


def coco_set(folder: Path, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    images, boxes = [], []
    for i in range(12):
        w, h = int(rng.integers(60, 120)), int(rng.integers(60, 120))
        images.append({"id": i, "file_name": f"{i}.jpg", "width": w, "height": h})
        picture(folder / f"val/{i}.jpg", (w, h))
        for _ in range(rng.integers(1, 6)):
            x, y = rng.uniform(0, w * 0.6), rng.uniform(0, h * 0.6)
            bw, bh = rng.uniform(8, w * 0.4), rng.uniform(8, h * 0.4)
            number = len(boxes) + 1
            box = {"id": number, "image_id": i, "category_id": int(rng.integers(1, 4)), "area": bw * bh}
            boxes.append({**box, "bbox": [x, y, bw, bh], "iscrowd": int(rng.random() < 0.3)})
    names = [{"id": c, "name": f"class {c}"} for c in (1, 2, 3)]
    content = {"info": {}, "images": images, "annotations": boxes, "categories": names}
    write(folder / "annotations/instances_val.json", json.dumps(content))
    return content


def library_ap(content: dict, detections: list[dict]) -> float:
    """pycocotools on the original JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = content
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(detections), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("letterbox", (False, True))
def test_coco_ap_of_converted_data_is_the_librarys_of_the_original_json(
    tmp_path, monkeypatch, capfd, seed, letterbox
):
    monkeypatch.chdir(tmp_path)
    content = coco_set(tmp_path / "in", seed)
    words = [
        "--format",
        "coco",
        "--input",
        "in/annotations/instances_val.json",
        "--output",
        "out",
        "--split",
        0.999,
    ]
    code, said = perform(capfd, "converter", words)
    assert code == 0, said.err
    config = read_data("out/out.data")
    assert config.difficult == Path("out/difficult.txt")
    lists = [p for p in (config.train, config.valid) if p is not None]
    rng, theirs, ours, truths, ignored = np.random.default_rng(seed + 100), [], [], [], []
    monkeypatch.setattr(Path, "exists", Path.exists)
    for path in lists:
        data = ListDataset(path, 3, (96, 128), letterbox=letterbox, difficult=config.difficult)
        aside = data.ignored()
        for index, name in enumerate(data.images):
            image = next(i for i in content["images"] if i["file_name"] == Path(name).name)
            rect, rows = data.rect(index), []
            for box in content["annotations"]:
                if box["image_id"] != image["id"]:
                    continue
                for _ in range(3):
                    x, y, w, h = np.array(box["bbox"]) + rng.normal(0, 3, 4)
                    score, label = float(rng.random()), int(rng.choice([box["category_id"], 1, 2]))
                    w, h = max(w, 2.0), max(h, 2.0)
                    theirs.append(
                        {"image_id": image["id"], "category_id": label, "bbox": [x, y, w, h], "score": score}
                    )
                    sx, sy = 128 / (rect[2] - rect[0]), 96 / (rect[3] - rect[1])
                    corners = [
                        (x - rect[0]) * sx,
                        (y - rect[1]) * sy,
                        (x + w - rect[0]) * sx,
                        (y + h - rect[1]) * sy,
                    ]
                    rows.append([*corners, score, label - 1])
            ours.append(np.array(rows).reshape(-1, 6))
            size = np.array([128, 96, 128, 96])

            def corners_of(boxes, size=size):
                low, high = boxes[:, 1:3] - boxes[:, 3:5] / 2, boxes[:, 1:3] + boxes[:, 3:5] / 2
                return np.concatenate([np.concatenate([low, high], 1) * size, boxes[:, :1]], 1)

            _, targets = data[index]
            truths.append(corners_of(targets[:, 1:].numpy()))
            ignored.append(corners_of(aside[index]) if len(aside[index]) else np.zeros((0, 5)))
    expected = library_ap(content, theirs)
    assert evaluation.score(ours, truths, ignored=ignored).map == pytest.approx(expected, abs=2e-3)
    assert sum(map(len, ignored)) > 3


def test_the_commands_count_so(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    bench = make_bench(tmp_path, capfd)
    before, _ = bench.report("test")
    write(tmp_path / "difficult.txt", "".join(f"difficult/images/{i}.png\n" for i in range(3)))
    for i in range(3):
        write(tmp_path / f"difficult/labels/{i}.txt", "0 0.5 0.5 1 1\n1 0.5 0.5 1 1\n")
    write(tmp_path / "two.data", (tmp_path / "two.data").read_text() + "difficult=difficult.txt\n")
    after, lines = bench.report("test")
    assert lines == [] and after["detections"] < before["detections"] and after["boxes"] == before["boxes"]
    assert after["map50"] >= before["map50"]
    assert bench.run("train")[0] == 0
    write(tmp_path / "difficult/labels/1.txt", "9 0.5 0.5 1 1\n")
    bench.refused("test", "difficult/labels/1.txt:1", "class 9")
    write(tmp_path / "two.data", (tmp_path / "two.data").read_text().replace("difficult.txt", "none.txt"))
    bench.refused("test", "none.txt", "no such list")
