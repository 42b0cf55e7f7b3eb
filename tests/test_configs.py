"""Every cfg and .data file that ships: reads without a warning, is written as it was, and is the network it says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from darkslim.cfg import parse_cfg, read_cfg, write_cfg
from darkslim.datafile import read_data
from darkslim.graph import Graph
from darkslim.profile import count
from darkslim.schema import unknown_keys

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(p for p in (ROOT / "config").glob("*.cfg") if not p.name.startswith("prune_"))
LAYERS = {"yolov3-hand": 107, "yolov3": 107, "yolov3-bccd": 107, "yolov3-spp-hand": 114, "yolov3-tiny-hand": 24,
          "yolov3-tiny-bccd": 24, "yolov3-tiny-demo": 24, "yolov3-nano-hand": 59, "yolov3-nano-bccd": 59}

every_cfg = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)


def data_of(path: Path) -> Path:
    """The .data file that a cfg is meant for, by the end of its name."""
    names = {"hand": "oxfordhand", "demo": "oxfordhand", "bccd": "bccd"}
    return ROOT / "config" / f"{names.get(path.stem.split('-')[-1], 'coco')}.data"


def plain_count(text: str) -> tuple[int, int]:
    """(parameters, MACs) of a cfg's convolutions, worked out without the package.

    Gamma, beta and biases count as parameters; running statistics do not."""
    sections: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        if line.startswith("["):
            sections.append((line[1:-1], {}))
        elif "=" in line and not line.startswith("#"):
            sections[-1][1].update([line.split("=", 1)])
    h, c, parameters, macs, outputs = int(sections[0][1]["height"]), 3, 0, 0, []
    for i, (kind, o) in enumerate(sections[1:]):
        if kind == "convolutional":
            filters, k = int(o["filters"]), int(o["size"])
            h = (h + 2 * (k // 2) - k) // int(o["stride"]) + 1
            parameters += filters * c * k * k + filters * (2 if "batch_normalize" in o else 1)
            macs, c = macs + filters * c * k * k * h * h, filters
        elif kind == "maxpool":
            h = (h - 1) // int(o["stride"]) + 1
        elif kind == "upsample":
            h *= 2
        elif kind == "route":
            sources = [int(x) if int(x) >= 0 else i + int(x) for x in o["layers"].split(",")]
            c, h = sum(outputs[s][0] for s in sources), outputs[sources[0]][1]
        outputs.append((c, h))
    return parameters, macs


def test_all_are_here():
    assert {p.stem: len(read_cfg(p).layers) for p in CONFIGS} == LAYERS


@every_cfg
def test_reads_and_writes_the_same_bytes(path, tmp_path, recwarn):
    cfg = read_cfg(path)
    assert cfg.warnings == [] and unknown_keys(cfg) == [] and not recwarn.list
    write_cfg(cfg, tmp_path / "again.cfg")
    assert (tmp_path / "again.cfg").read_bytes() == path.read_bytes()
    assert cfg.normalised().to_bytes() == path.read_bytes()  # already what every reader understands alike
    assert parse_cfg(path.read_bytes(), "x").hash == cfg.hash


@every_cfg
def test_heads_fit_the_classes_and_the_anchors(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # paths in a .data file start from the folder that a command runs in
    graph, data = Graph(read_cfg(path)), read_data(data_of(path))
    assert len(data.names) == data.classes
    heads = [graph.nodes[i] for i in graph.heads]
    assert [h.stride for h in heads] == ([32, 16] if "tiny" in path.stem else [32, 16, 8])
    for head in heads:
        assert head.opts["classes"] == data.classes
        assert head.in_shapes[0][0] == len(head.opts["mask"]) * (5 + data.classes)
        assert head.opts["anchors"] == heads[0].opts["anchors"]
    masks = [m for h in heads for m in h.opts["mask"]]
    assert sorted(masks) == list(range(len(heads[0].opts["anchors"]))), "every anchor belongs to one head"
    areas = [np.mean([np.prod(h.opts["anchors"][m]) for m in h.opts["mask"]]) for h in heads]
    assert areas == sorted(areas, reverse=True), "coarse heads have the large anchors"


@every_cfg
def test_every_convolution_says_what_readers_disagree_on(path):
    for section in read_cfg(path).layers:
        needed = {"convolutional": ("filters", "size", "stride", "pad", "activation"), "maxpool": ("size", "stride"),
                  "upsample": ("stride",), "shortcut": ("from", "activation")}.get(section.type, ())
        assert [k for k in needed if section.get(k) is None] == [], section.place


@every_cfg
def test_counts_agree_with_a_plain_reading(path):
    profile = count(Graph(read_cfg(path)))
    parameters, macs = plain_count(path.read_text())
    assert profile.params == parameters
    assert profile.macs == pytest.approx(macs, rel=1e-3)


def test_the_published_numbers():
    """61,523,734 parameters and 32.645 G MACs are those of the cfg that the reference's results were made with."""
    hand = count(Graph(read_cfg(ROOT / "config" / "yolov3-hand.cfg")))
    assert hand.params == 61_523_734
    assert round(hand.macs / 1e9, 3) == 32.645
    assert count(Graph(read_cfg(ROOT / "config" / "yolov3.cfg"))).params == 61_949_149


def test_nano_is_small_and_has_the_shape_of_yolov3():
    nano, full = (Graph(read_cfg(ROOT / "config" / f"{name}.cfg")) for name in ("yolov3-nano-hand", "yolov3-hand"))
    assert 600_000 <= count(nano).params <= 1_000_000
    assert nano.input_shape == (3, 256, 256)
    for graph in (nano, full):
        downs = [n for n in graph.nodes if n.type == "convolutional" and n.opts["stride_x"] == 2]
        assert len(downs) == 5 and len(graph.heads) == 3
    assert sum(n.type == "shortcut" for n in nano.nodes) == 7 and sum(n.type == "shortcut" for n in full.nodes) == 23


def test_hand_pictures_are_padded_and_blood_cells_stretched():
    flags = {p.stem: read_cfg(p).net.get("letter_box") for p in CONFIGS}
    assert {name for name, flag in flags.items() if flag == "1"} == {name for name in flags if name.endswith("-hand")}


@pytest.mark.parametrize("name", ["yolov3-bccd", "yolov3-tiny-bccd", "yolov3-nano-bccd"])
def test_bccd_anchors_fit_the_training_boxes(name, bccd):
    sizes = []
    for stem in (bccd / "ImageSets/Main/trainval.txt").read_text().split():
        tree = ET.parse(bccd / "Annotations" / f"{stem}.xml").getroot()
        scale = [416 / float(tree.find(f"size/{side}").text) for side in ("width", "height")]
        for box in tree.iter("bndbox"):
            x1, y1, x2, y2 = (float(box.find(k).text) for k in ("xmin", "ymin", "xmax", "ymax"))
            if x2 > x1 and y2 > y1:
                sizes.append(((x2 - x1) * scale[0], (y2 - y1) * scale[1]))
    graph = Graph(read_cfg(ROOT / "config" / f"{name}.cfg"))
    boxes, anchors = np.array(sizes)[:, None], np.array(graph.nodes[graph.heads[0]].opts["anchors"])[None]
    common = np.minimum(boxes, anchors).prod(2)
    best = (common / (boxes.prod(2) + anchors.prod(2) - common)).max(1)
    assert len(sizes) == 3941 and best.mean() > (0.855 if "tiny" in name else 0.88)  # COCO's nine anchors reach .67
