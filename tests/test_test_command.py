"""test.py as a command, on a network of one convolution whose boxes can be worked out by hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkslim import commands
from darkslim.base import files
from models import Darknet, save_weights

# every 32 x 32 cell says how bright it is (objectness) and which colour it has (class); its box is the cell
# itself
CFG = """[net]
width=64
height=64
channels=3

[convolutional]
filters=7
size=32
stride=32
activation=linear

[yolo]
mask=0
anchors=32,32
num=1
classes=2
"""
RED, GREEN = 0, 1
CELLS = {"tl": (0, 0), "tr": (32, 0), "bl": (0, 32), "br": (32, 32)}


def label(cls, cell):
    x, y = CELLS[cell]
    return f"{cls} {(x + 16) / 64} {(y + 16) / 64} 0.5 0.5\n"


@pytest.fixture
def place(tmp_path):
    """Three pictures. One red box found; one green box found beside a red one that is none; one red box in
    the dark.
    """
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    pictures = [
        ({"tl": RED}, label(RED, "tl")),
        ({"br": GREEN, "tr": RED}, label(GREEN, "br")),
        ({}, label(RED, "bl")),
    ]
    for i, (painted, text) in enumerate(pictures):
        pixels = np.zeros((64, 64, 3), np.uint8)
        for cell, colour in painted.items():
            x, y = CELLS[cell]
            pixels[y : y + 32, x : x + 32, colour] = 255 - i  # later pictures a little darker: no ties
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "labels" / f"{i}.txt").write_text(text)
    (tmp_path / "valid.txt").write_text("".join(f"images/{i}.png\n" for i in range(3)))
    (tmp_path / "two.names").write_text("red\ngreen\n")
    (tmp_path / "two.data").write_text("classes=2\nvalid=valid.txt\nnames=two.names\n")
    (tmp_path / "net.cfg").write_text(CFG)
    model = Darknet(str(tmp_path / "net.cfg"))
    conv = model.convolutions()[0]
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
        conv.weight[4], conv.bias[4] = 20 / 1024, -10
        conv.weight[5, RED], conv.weight[5, GREEN] = 10 / 1024, -10 / 1024
        conv.weight[6, RED], conv.weight[6, GREEN] = -10 / 1024, 10 / 1024
    save_weights(model, tmp_path / "net.weights")
    return tmp_path


def run(root, place, *more):
    line = [
        sys.executable,
        str(root / "test.py"),
        "--model_def",
        "net.cfg",
        "--data_config",
        "two.data",
        "--weights_path",
        "net.weights",
        "--n_cpu",
        "0",
        *more,
    ]
    return subprocess.run(
        line,
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def quick(root, place, monkeypatch, capsys):
    """The command in this process, which saves importing torch again: returns (exit code, its lines on
    stderr).
    """
    spec = importlib.util.spec_from_file_location("test_command", root / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*more):
        line = [
            "--model_def",
            "net.cfg",
            "--data_config",
            "two.data",
            "--weights_path",
            "net.weights",
            "--n_cpu",
            "0",
            *more,
        ]
        code = commands.run(module.main, module.parser(), line)
        return code, capsys.readouterr().err

    return call


def content(place):
    return {
        str(p.relative_to(place)): p.read_bytes()
        for p in place.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }


def test_scores_by_hand(root, place):
    done = run(root, place, "--json", "out.json", "--figure", "curve.png", "--batch_size", "2")
    assert (done.returncode, done.stderr) == (0, "")
    got = json.loads((place / "out.json").read_text())
    red, green = got["per_class"]
    assert (red["name"], red["truths"], red["detections"]) == ("red", 2, 2)
    assert (red["ap50"], red["precision"], red["recall"], red["f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert (green["ap50"], green["precision"], green["recall"], green["truths"]) == (1, 1, 1, 1)
    assert (got["map50"], got["precision"], got["recall"], got["f1"]) == (0.75, 0.75, 0.75, 0.75)
    # COCO reads precision at 101 recalls, of which 51 are reached; the boxes are exact, so that every IoU
    # gives the same
    assert got["map"] == pytest.approx((51 / 101 + 1) / 2, abs=1e-6)
    assert (got["images"], got["boxes"]) == (3, 3)
    assert "mAP50 0.7500" in done.stdout and "| red" in done.stdout and "| mean" in done.stdout
    assert files.sniff((place / "curve.png").read_bytes()) == "an image"


def test_thresholds_and_plus_one(quick, place):
    # above an objectness of 1 - 5e-5 there is nothing
    assert quick("--json", "out.json", "--conf_thres", "1") == (0, "")
    assert json.loads(Path("out.json").read_text())["map50"] == 0
    # truths half as high: IoU 0.5 is just enough; with a pixel more on each side it is 17 x 33 / 33^2 = 0.515
    (place / "labels" / "1.txt").write_text("1 0.75 0.625 0.5 0.25\n")
    for flags, ap in (
        (("--iou_thres", "0.5"), 1),
        (("--iou_thres", "0.51"), 0),
        (("--iou_thres", "0.51", "--plus_one"), 1),
    ):
        assert quick("--json", "out.json", *flags) == (0, "")
        assert json.loads(Path("out.json").read_text())["per_class"][1]["ap50"] == ap


def test_another_input_size(quick):
    assert quick("--img_size", "128", "--json", "out.json") == (
        0,
        "",
    )  # 4 x 4 cells: boxes of 32 on objects of 64
    assert json.loads(Path("out.json").read_text())["map50"] == 0


def test_a_wrong_request_as_a_command(root, place):
    before = content(place)
    done = run(root, place, "--json", "out.json", "--weights_path", "none.pth")
    assert done.returncode == 2
    assert done.stderr.startswith("error: none.pth: no such") and done.stderr.count("\n") == 1
    assert content(place) == before


@pytest.mark.parametrize(
    "flags, error",
    [
        (("--model_def", "none.cfg"), "none.cfg: no such"),
        (("--data_config", "none.data"), "none.data: no such"),
        (("--img_size", "100"), "--img_size: 100 is no multiple of the network's stride 32; use 96 or 128"),
        (("--json", "net.cfg"), "--json: net.cfg is what --model_def reads; another file"),
        (("--figure", "net.weights"), "--figure: net.weights is what --weights_path reads; another file"),
        (("--figure", "labels"), "labels: is a folder"),
        (("--device", "tpu"), "--device: 'tpu'; auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(quick, place, flags, error):
    before = content(place)
    code, err = quick("--json", "out.json", *flags)
    assert code == 2
    assert err.startswith(f"error: {error}") and err.count("\n") == 1
    assert content(place) == before


@pytest.mark.parametrize(
    "name, text, error",
    [
        (
            "two.data",
            "classes=3\nvalid=valid.txt\n",
            "net.cfg:12 [yolo] layer 1: classes=2; classes=3 as in two.data",
        ),
        ("two.data", "classes=2\n", "two.data: has no valid="),
        ("labels/0.txt", "0 0.5 0.5 word 1\n", "valid.txt:"),
        ("net.weights", "", "net.weights: "),
    ],
)
def test_a_wrong_input_is_one_line_and_writes_nothing(quick, place, name, text, error):
    (place / name).write_text(text)
    before = content(place)
    code, err = quick("--json", "out.json")
    assert code == 2
    assert err.startswith(f"error: {error}") and err.count("\n") == 1
    assert content(place) == before


@pytest.mark.parametrize("flag", ["--iou_thres", "--conf_thres", "--nms_thres"])
@pytest.mark.parametrize("value", ["nan", "1.5", "-0.1"])
def test_thresholds_outside_of_0_to_1(quick, flag, value):
    with pytest.raises(SystemExit) as stop:
        quick(f"{flag}={value}")
    assert stop.value.code == 2
