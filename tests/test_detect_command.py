"""detect.py: what it finds is what evaluation finds, in pixels of the picture; every way of naming pictures
and of writing what was found.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, check, perform, picture, snapshot, tiny_model, write
from PIL import Image

from darkslim import evaluation
from darkslim.base.errors import DatasetError
from darkslim.data.images import prepare, unplace_boxes
from darkslim.data.sources import pictures
from darkslim.network.weights import load_model, save_weights
from darkslim.pipelines.detect import folder_name, stems
from darkslim.report.boxes_drawn import COLOURS, draw

COMMON = ("--model_def", "net.cfg", "--weights_path", "net.weights", "--device", "cpu", "--n_cpu", "0")


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.cfg", TINY.replace("channels=3", "channels=3\nletter_box=1"))
    save_weights(tiny_model(), "net.weights")
    for i, size in enumerate([(40, 30), (64, 64), (20, 50)]):
        picture(tmp_path / "photos" / f"{i}.png", size)
    write(tmp_path / "two.names", "red\ngreen\n")

    def go(*words):
        code, said = perform(capfd, "detect", [*COMMON, *map(str, words)])
        return code, said.err.splitlines(), said.out

    return go


FEW = ("--source", "photos", "--conf_thres", "0.25", "--names", "two.names")


def test_what_it_finds_is_what_evaluation_finds(run):
    code, err, out = run(*FEW, "--json", "a.json", "--batch_size", 2)
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert said["images"] == 3 and "3 pictures" in out and said["run"]["command"] == "detect.py"
    model, count = load_model("net.cfg", "net.weights"), 0
    for row in said["detections"]:
        pixels, rect, stored = prepare(row["file"], (32, 32), letterbox=True)
        with torch.no_grad():
            pred = model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
        wanted = evaluation.detections(pred, 0.25, 0.45)[0].numpy()
        corners = unplace_boxes(wanted[:, :4], rect, (32, 32)).clip(0, [*stored, *stored])
        there = (wanted[:, 4] >= 0.25) & (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        found = [[one[k] for k in ("x1", "y1", "x2", "y2", "score", "class")] for one in row["detections"]]
        expected = np.column_stack([corners, wanted[:, 4:]])[there]
        np.testing.assert_allclose(np.array(found).reshape(-1, 6), expected, atol=1e-3)
        assert all(one["name"] == ("red", "green")[one["class"]] for one in row["detections"])
        assert (corners <= [*stored, *stored]).all()
        count += len(found)
    assert count > 3, "the toy finds something"
    for i in range(3):
        with Image.open(f"runs/detect/{i}.png") as drawn, Image.open(f"photos/{i}.png") as before:
            assert drawn.size == before.size
            if said["detections"][i]["detections"]:
                assert (np.asarray(drawn.convert("RGB")) != np.asarray(before.convert("RGB"))).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_and_crops(run, workers):
    words = ("--save_labels", "darknet", "--crops", "--save", "out", "--json", "a.json", "--n_cpu", workers)
    assert run(*FEW, *words)[0] == 0
    crops = 0
    for i, row in enumerate(json.loads(Path("a.json").read_text())["detections"]):
        with Image.open(row["file"]) as image:
            w, h = image.size
        lines = Path(f"out/labels/{i}.txt").read_text().splitlines()
        assert len(lines) == len(row["detections"])
        for number, (line, one) in enumerate(zip(lines, row["detections"], strict=True)):
            cls, x, y, wide, high, score = map(float, line.split())
            assert cls == one["class"] and score == pytest.approx(one["score"], abs=1e-4)
            assert (x - wide / 2) * w == pytest.approx(one["x1"], abs=1e-3 * w)
            assert (y + high / 2) * h == pytest.approx(one["y2"], abs=1e-3 * h)
            with Image.open(f"out/crops/{one['name']}/{i}_{number}.png") as crop:
                assert crop.width == int(np.ceil(one["x2"])) - int(one["x1"])
            crops += 1
    assert crops == len(list(Path("out/crops").rglob("*.png"))) > 0
    assert run(*FEW, "--save_labels", "coco", "--no_pictures", "--save", "coco", "--json", "b.json")[0] == 0
    rows = json.loads(Path("coco/detections.json").read_text())
    assert len(rows) == crops and sorted(p.name for p in Path("coco").iterdir()) == ["detections.json"]
    first = next(r for r in json.loads(Path("b.json").read_text())["detections"] if r["detections"])
    one = first["detections"][0]
    assert rows[0]["bbox"] == [one["x1"], one["y1"], one["x2"] - one["x1"], one["y2"] - one["y1"]]


def test_ways_to_name_pictures(run):
    assert pictures("photos") == [f"photos/{i}.png" for i in range(3)] == pictures("photos/*.png")
    assert pictures("**/1.png") == ["photos/1.png"] == pictures("photos/1.png")
    write(Path("list.txt"), "photos/2.png\nphotos/0.png\n")
    assert pictures("list.txt") == ["photos/2.png", "photos/0.png"]
    for source, words in (
        ("0", "a video or a stream"),
        ("rtsp://x/y", "a video or a stream"),
        ("a.MP4", "a video or a stream"),
        ("nothing", "no such picture"),
        ("none/*.jpg", "holds no picture"),
    ):
        with pytest.raises(DatasetError, match=words):
            pictures(source)
    assert stems(["a/x.jpg", "b/x.png", "y.jpg", "c/x.jpg"]) == ["x", "x_2", "y", "x_3"]


def test_names_of_classes_lead_nowhere_else():
    names = {"..": "class 3", "a/b": "a_b", "../../x": "_.._x", "stop sign": "stop sign", "é" * 300: "é" * 60}
    assert {name: folder_name({"name": name, "class": 3}) for name in names} == names


def test_pictures_that_cannot_be_read(run):
    write(Path("photos/1.png"), Path("photos/1.png").read_bytes()[:200])
    code, err, _ = run(*FEW)
    check(code, err, "photos/1.png", "broken")
    code, err, out = run(*FEW, "--skip_broken", "--json", "a.json")
    said = json.loads(Path("a.json").read_text())
    assert code == 0 and said["images"] == 2 and said["broken"] == ["photos/1.png"]
    assert "left out: photos/1.png" in out


@pytest.mark.parametrize(
    "words, where, text",
    [
        (["--source", "none"], "none", "no such"),
        ([*FEW, "--save", "photos"], "--save", "holds the pictures themselves"),
        ([*FEW, "--save", ".", "--save_labels", "darknet", "--no_pictures"], "--save", "holds the pictures"),
        ([*FEW, "--save", "o", "--json", "o/detections.json"], "--json", ""),
        ([*FEW[:4], "--names", "net.cfg"], "net.cfg", "names"),
        ([*FEW, "--conf_thres", "2"], "argument --conf_thres", "outside 0 to 1"),
        ([*FEW, "--json", "net.cfg"], "--json", "another"),
        (["--source", "photos", "--img_size", "33"], "--img_size", ""),
    ],
)
def test_requests_that_are_refused(run, words, where, text):
    before = snapshot(Path("."))
    code, err, _ = run(*words)
    assert code == 2 and len(err) == 1 and where in err[0] and text in err[0], err
    assert snapshot(Path(".")) == before


def test_boxes_are_drawn_where_they_are():
    canvas = Image.new("RGB", (200, 120), "black")
    found = [{"class": 0, "name": "a", "score": 0.9, "x1": 50, "y1": 40, "x2": 120, "y2": 100}]
    pixels = np.asarray(draw(canvas, found))
    assert tuple(pixels[70, 50]) == tuple(pixels[100, 80]) == COLOURS[0]
    assert tuple(pixels[70, 80]) == (0, 0, 0) and (pixels[30:40, 50:70] == COLOURS[0]).all(-1).any()
    edge = [{**found[0], "x1": 190, "y1": 0, "x2": 200, "y2": 10}]
    assert (np.asarray(draw(canvas, edge)) != 0).any(), "a label at the border stays inside"


def test_a_published_detector_on_real_pictures(run, published, coco256, tmp_path):
    """Most large objects of COCO's pictures are found, with the right name, where they are."""
    names = coco256 / "coco.names"
    images = [line for line in (coco256 / "val.txt").read_text().split()][:24]
    paths = [p if Path(p).is_absolute() else str(coco256 / p) for p in images]
    write(tmp_path / "some.txt", "\n".join(paths) + "\n")
    words = ["--source", "some.txt", "--names", names, "--json", "a.json", "--conf_thres", 0.2]
    cfg, weights = (published / f"yolo-fastest-1.1-xl.{end}" for end in ("cfg", "weights"))
    code, err, _ = run(*words, "--model_def", cfg, "--weights_path", weights)
    assert code == 0, err
    said, hits, truths = json.loads(Path("a.json").read_text()), 0, 0
    for row in said["detections"]:
        label = Path(row["file"].replace("/images/", "/labels/")).with_suffix(".txt")
        with Image.open(row["file"]) as image:
            w, h = image.size
        for line in label.read_text().splitlines() if label.exists() else []:
            cls, x, y, wide, high = map(float, line.split()[:5])
            if wide * high < 0.1:
                continue
            truths += 1
            box = np.array([(x - wide / 2) * w, (y - high / 2) * h, (x + wide / 2) * w, (y + high / 2) * h])
            hits += any(one["class"] == cls and overlap(box, one) > 0.5 for one in row["detections"])
    assert truths > 15 and hits > 0.6 * truths, (hits, truths)


def overlap(box: np.ndarray, one: dict) -> float:
    other = np.array([one["x1"], one["y1"], one["x2"], one["y2"]])
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    both = np.prod((high - low).clip(0))
    areas = [np.prod(b[2:] - b[:2]) for b in (box, other)]
    return both / (sum(areas) - both)
