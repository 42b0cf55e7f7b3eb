"""converter.py --cfg_out: a cfg for the classes and boxes of one's own data."""

from __future__ import annotations

import pytest
from commands import ROOT, TINY, call, check, picture, snapshot, write

from darkslim.base.errors import CfgError
from darkslim.network import schema
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.cfg_classes import for_data
from darkslim.network.darknet import Darknet

VOC = """<annotation><size><width>64</width><height>48</height><depth>3</depth></size>{}</annotation>"""
BOX = "<xmin>{}</xmin><ymin>5</ymin><xmax>{}</xmax><ymax>{}</ymax>"
OBJECT = "<object><name>{}</name><bndbox>" + BOX + "</bndbox></object>"


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """Six pictures with boxes of three classes, in Pascal VOC's layout."""
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        objects = "".join(
            OBJECT.format(name, x, x + 6 + 2 * i + 3 * x, 12 + 3 * i) for x, name in enumerate("abc", 1)
        )
        picture(tmp_path / f"VOC/JPEGImages/{i}.jpg", (64, 48 + i))
        write(tmp_path / f"VOC/Annotations/{i}.xml", VOC.format(objects))
    write(tmp_path / "VOC/ImageSets/Main/train.txt", "0\n1\n2\n3\n")
    write(tmp_path / "VOC/ImageSets/Main/val.txt", "4\n5\n")
    return tmp_path


def convert(capfd, *words):
    return call(capfd, "converter", ["--format", "voc", "--input", "VOC", "--output", "data/mine", *words])[
        :2
    ]


def test_classes_filters_and_anchors(voc, capfd):
    base = ROOT / "config/yolov3-tiny-hand.cfg"
    words = ["--model_def", base, "--anchors", 6, "--cfg_out", "mine.cfg"]
    code, lines = convert(capfd, *words)
    assert code == 0, lines
    cfg = read_cfg("mine.cfg")
    heads = [layer for layer in cfg.layers if layer.type == "yolo"]
    before = [cfg.layers[cfg.layers.index(head) - 1] for head in heads]
    assert [h.get("classes") for h in heads] == ["3", "3"] and [b.get("filters") for b in before] == [
        "24",
        "24",
    ]
    sizes = schema.values(heads[0])["anchors"]
    assert len(sizes) == 6 and sizes != schema.values(read_cfg(base).layers[-1])["anchors"]
    areas = [w * h for w, h in sizes]
    assert areas == sorted(areas) and schema.values(heads[1])["anchors"] == sizes
    assert Darknet(cfg).heads[0].classes == 3


def test_without_anchors_they_stay(voc, capfd):
    base = ROOT / "config/yolov3-hand.cfg"
    assert convert(capfd, "--model_def", base, "--cfg_out", "mine.cfg") == (0, [])
    mine, theirs = read_cfg("mine.cfg"), read_cfg(base)
    assert mine.layers[-1].get("anchors") == theirs.layers[-1].get("anchors")
    assert mine.layers[-1].get("classes") == "3" and mine.layers[-2].get("filters") == "24"


def test_refused_before_anything_is_written(voc, capfd):
    base = str(ROOT / "config/yolov3-tiny-hand.cfg")
    write(voc / "plain.cfg", TINY[: TINY.index("[yolo]")])
    for words, where, said in (
        (["--cfg_out", "mine.cfg"], "--cfg_out", "give --model_def too"),
        (["--cfg_out", "m.cfg", "--model_def", base, "--anchors", 5], base, "ask for --anchors 6"),
        (["--cfg_out", "m.cfg", "--model_def", "plain.cfg"], "plain.cfg", "no [yolo]"),
        (["--cfg_out", "plain.cfg", "--model_def", "plain.cfg"], "--cfg_out", "plain.cfg"),
        (["--model_def", base], "--model_def", "only matters"),
    ):
        before = snapshot(voc)
        check(*convert(capfd, *words), where, said)
        assert snapshot(voc) == before


def test_a_head_behind_something_else():
    cfg = parse_cfg(TINY.replace("[yolo]", "[maxpool]\nsize=1\nstride=1\n\n[yolo]"), "net.cfg")
    with pytest.raises(CfgError, match=r"\[maxpool\] before it"):
        for_data(cfg, 3)
    twin = for_data(parse_cfg(TINY, "net.cfg"), 80)
    assert twin.layers[1].get("filters") == "85" and twin.layers[2].get("classes") == "80"
