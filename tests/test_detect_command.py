"""detect.py: what it finds is what evaluation finds, in pixels of the picture; every way of naming pictures
and of writing what was found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import TINY, check, perform, picture, snapshot, tiny_model, write
from PIL import Image

from darkslim import evaluation
from darkslim.base.errors import DatasetError
from darkslim.base.observer import Observer
from darkslim.base.signals import StopFlag
from darkslim.data.images import prepare, unplace_boxes
from darkslim.data.sources import pictures
from darkslim.data.video import AHEAD, Video
from darkslim.network.weights import load_model, save_weights
from darkslim.pipelines import DetectSettings, detect
from darkslim.pipelines.detect import stems
from darkslim.pipelines.detections import folder_name
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


os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # as Video sets it, which is not the first to use FFmpeg here
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


@pytest.fixture
def video(run):
    """24 frames of a bright square that goes from left to right, a red half and a green one."""
    writer = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (64, 48))
    for i in range(24):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[10:30, 2 * i : 2 * i + 16] = (0, 0, 255) if i < 12 else (0, 255, 0)
        writer.write(frame)
    writer.release()
    return Path("film.avi")


def test_a_video_gives_what_its_frames_give(run, video):
    words = ("--source", video, "--conf_thres", "0.2", "--names", "two.names", "--batch_size", 5)
    code, err, out = run(*words, "--json", "a.json", "--sheet", "--save_labels", "darknet", "--crops")
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert said["images"] == 24 and said["fps"] == 12 and "24 frames" in out and not said["dropped"]
    assert [row["frame"] for row in said["detections"]] == list(range(24))
    assert said["detections"][6]["second"] == pytest.approx(0.5)
    reader = cv2.VideoCapture(str(video))
    Path("frames").mkdir()
    for i in range(24):
        Image.fromarray(cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB)).save(f"frames/{i:02}.png")
    assert run("--source", "frames", *words[2:], "--json", "b.json", "--save", "other")[0] == 0
    frames = json.loads(Path("b.json").read_text())["detections"]
    for mine, its in zip(said["detections"], frames, strict=True):
        assert len(mine["detections"]) == len(its["detections"])
        for a, b in zip(mine["detections"], its["detections"], strict=True):
            assert a["name"] == b["name"] and a["score"] == pytest.approx(b["score"], abs=1e-4)
            assert [a[k] for k in ("x1", "y2")] == pytest.approx([b[k] for k in ("x1", "y2")], abs=1e-2)
    drawn = cv2.VideoCapture("runs/detect/film.mp4")
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 24 and drawn.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    found = sum(len(row["detections"]) for row in said["detections"])
    assert found and found == len(list(Path("runs/detect/crops").rglob("*.jpg")))
    assert len(list(Path("runs/detect/labels").glob("film_0000*.txt"))) == 24
    with Image.open("runs/detect/sheet.jpg") as sheet:
        assert sheet.size == (6 * 240, 4 * 240)
    assert not list(Path("runs/detect").glob(".*"))


def test_some_frames_and_all_labels_in_one_file(run, video):
    words = ("--source", video, "--conf_thres", "0.2", "--frames", 7, "--save_labels", "coco")
    assert run(*words, "--no_pictures", "--save", "o", "--json", "a.json")[0] == 0
    said = json.loads(Path("a.json").read_text())
    rows = json.loads(Path("o/detections.json").read_text())
    assert said["images"] == 7 and len(rows) == sum(len(row["detections"]) for row in said["detections"])
    assert sorted(path.name for path in Path("o").iterdir()) == ["detections.json"]


def test_a_sheet_of_pictures(run):
    assert run(*FEW, "--sheet", "--no_pictures", "--save", "o")[0] == 0
    with Image.open("o/sheet.jpg") as sheet:
        assert sheet.size == (3 * 240, 240)
    assert [p.name for p in Path("o").iterdir()] == ["sheet.jpg"]


class Stream(BaseHTTPRequestHandler):
    """JPEG after JPEG, as network cameras send them."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for i in range(40):
                pixels = np.full((48, 64, 3), 6 * i, np.uint8)
                data = cv2.imencode(".jpg", pixels)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.01)

    def log_message(self, *_):
        pass


def test_a_stream_over_http(run):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/camera.mjpg?x=1"
        code, err, _ = run("--source", address, "--frames", 10, "--save", "o", "--json", "a.json")
    finally:
        server.shutdown()
        server.server_close()
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert said["images"] == 10 and cv2.VideoCapture("o/camera.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 10


def test_a_video_that_is_asked_to_end_keeps_what_it_saw(run, video):
    stop = StopFlag()

    class Watch(Observer):
        def progress(self, items, total=None, desc=""):
            for i, item in enumerate(items):
                if i == 3:
                    stop.name = "SIGINT"
                yield item

    words = {"model_def": "net.cfg", "weights_path": "net.weights", "device": "cpu", "batch_size": 2}
    said = detect(DetectSettings(source=str(video), save="o", **words), Watch(), stop)
    assert said["stopped"] and said["images"] == 6
    assert cv2.VideoCapture("o/film.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_frames_that_nobody_waits_for_are_dropped(video):
    slow = Video(str(video), 1 << 20)
    slow.live = True
    with slow:
        slow._thread.join()  # all of it has come in before the first is looked at
        seen = [number for number, _ in slow]
    assert seen[-1] == 23 and 0 < len(seen) <= AHEAD and slow.dropped >= 24 - AHEAD


@pytest.mark.parametrize(
    "source, content, text",
    [
        ("none.mp4", None, "no such video"),
        ("bad.mp4", b"no video at all", "cannot be opened"),
        ("http://127.0.0.1:9/x", None, "cannot be opened"),
    ],
)
def test_videos_that_cannot_be_opened(run, source, content, text):
    if content is not None:
        write(Path(source), content)
    code, err, _ = run("--source", source)
    check(code, err, source, text)


def test_frames_that_are_too_large_and_a_video_that_would_be_put_over_itself(run, video):
    code, err, _ = run("--source", video, "--max_pixels", 100)
    check(code, err, "film.avi", "64x48 pixels")
    shutil.copy(video, "film.mp4")
    code, err, _ = run("--source", "film.mp4", "--save", ".")
    assert code == 2 and "film.mp4" in err[0]
    assert Path("film.mp4").read_bytes() == Path("film.avi").read_bytes()
