"""Every cfg and .data file that ships: reads without a warning, is written as it was, and is the network it
says.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from random_cfgs import randomise

from darkslim.data.datafile import read_data
from darkslim.network.cfg import parse_cfg, read_cfg, write_cfg
from darkslim.network.cfg_doubts import doubts
from darkslim.network.cfg_plain import plain
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.profile import count
from darkslim.network.weights import model_bytes, save_weights

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(p for p in (ROOT / "config").glob("*.cfg") if not p.name.startswith("prune_"))
LAYERS = {
    "yolov3-hand": 107,
    "yolov3": 107,
    "yolov3-bccd": 107,
    "yolov3-spp-hand": 114,
    "yolov3-tiny-hand": 24,
    "yolov3-tiny-bccd": 24,
    "yolov3-tiny-demo": 24,
    "yolov3-nano-hand": 59,
    "yolov3-nano-bccd": 59,
    "yolov3-spp": 114,
    "yolov3-tiny": 24,
    "yolov3-tiny-prn": 28,
    "yolov4": 162,
    "yolov4-tiny": 38,
    "yolov4-csp": 175,
    "yolov7-tiny": 99,
    "enet-coco": 146,
    "csresnext50-panet-spp": 138,
}
# Input size; the .weights file in bytes, and in MiB as published (cut off behind the last digit; for
# yolov3-tiny-prn, yolov7-tiny,
# enet-coco and csresnext50 the bytes are known from here alone); BFLOPs as published (2 a multiply-add) and
# at which size.
PUBLISHED = {
    "yolov3": (416, 248_007_048, "236", 65.9, 416),
    "yolov3-spp": (608, 252_209_544, "240", 141.5, 608),
    "yolov3-tiny": (416, 35_434_956, "33.7", 5.6, 416),
    "yolov3-tiny-prn": (416, 19_759_052, "18.8", 3.5, 416),
    "yolov4": (608, 257_717_640, "245", 128.5, 608),
    "yolov4-tiny": (416, 24_251_276, "23.1", 6.9, 416),
    "yolov4-csp": (512, 211_944_840, "202", 120, 640),
    "yolov7-tiny": (416, 24_967_560, "23.8", 5.8, 416),
    "enet-coco": (416, 19_233_100, "18.3", 3.7, 416),
    "csresnext50-panet-spp": (416, 228_123_400, "217", 71.3, 512),
}
FINE_FIRST = (
    "yolov4",
    "yolov4-csp",
    "yolov7-tiny",
    "csresnext50-panet-spp",
)  # their heads come in the order 8, 16, 32
SHARED_ANCHOR = (
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "yolov4-tiny",
    "enet-coco",
)  # published with masks 3,4,5 and 1,2,3

every_cfg = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)


def data_of(path: Path) -> Path:
    """The .data file that a cfg is meant for, by the end of its name."""
    names = {"hand": "oxfordhand", "demo": "oxfordhand", "bccd": "bccd"}
    return ROOT / "config" / f"{names.get(path.stem.split('-')[-1], 'coco')}.data"


def head_strides(name: str) -> list[int]:
    """The strides of a cfg's heads, in the order in which they stand."""
    if name in FINE_FIRST:
        return [8, 16, 32]
    return [32, 16] if name == "enet-coco" or "tiny" in name else [32, 16, 8]


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
            assert o["pad"] == "1" and filters % int(o.get("groups", 1)) == c % int(o.get("groups", 1)) == 0
            h = (h + 2 * (k // 2) - k) // int(o["stride"]) + 1
            kernels = filters * (c // int(o.get("groups", 1))) * k * k
            parameters += kernels + filters * (2 if "batch_normalize" in o else 1)
            macs, c = macs + kernels * h * h, filters
        elif kind == "maxpool":
            h = (h - 1) // int(o["stride"]) + 1
        elif kind == "upsample":
            h *= 2
        elif kind == "avgpool":
            h = 1
        elif kind == "scale_channels":
            assert h == 1 and outputs[i + int(o["from"])][0] == c
            h = outputs[i + int(o["from"])][1]
        elif kind == "shortcut":  # the sum has the channels of the layer before
            source = int(o["from"])
            assert outputs[source if source >= 0 else i + source][1] == h
        elif kind == "route":
            sources = [int(x) if int(x) >= 0 else i + int(x) for x in o["layers"].split(",")]
            assert len({outputs[s][1] for s in sources}) == 1
            c, h = sum(outputs[s][0] // int(o.get("groups", 1)) for s in sources), outputs[sources[0]][1]
        else:
            assert kind in ("dropout", "yolo"), kind
        outputs.append((c, h))
    return parameters, macs


def test_all_are_here():
    assert {p.stem: len(read_cfg(p).layers) for p in CONFIGS} == LAYERS


@every_cfg
def test_reads_and_writes_the_same_bytes(path, tmp_path, recwarn):
    cfg = read_cfg(path)
    assert cfg.warnings == [] and doubts(cfg) == [] and not recwarn.list
    write_cfg(cfg, tmp_path / "again.cfg")
    assert (tmp_path / "again.cfg").read_bytes() == path.read_bytes()
    assert plain(cfg).to_bytes() == path.read_bytes()  # already what every reader understands alike
    assert parse_cfg(path.read_bytes(), "x").hash == cfg.hash


@every_cfg
def test_heads_fit_the_classes_and_the_anchors(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # paths in a .data file start from the folder that a command runs in
    graph, data = Graph(read_cfg(path)), read_data(data_of(path))
    assert len(data.names) == data.classes
    heads = [graph.nodes[i] for i in graph.heads]
    assert [h.stride for h in heads] == head_strides(path.stem)
    for head in heads:
        assert head.opts["classes"] == data.classes
        assert head.in_shapes[0][0] == len(head.opts["mask"]) * (5 + data.classes)
        assert head.opts["anchors"] == heads[0].opts["anchors"]
    masks = sorted(m for h in heads for m in h.opts["mask"])
    if path.stem in SHARED_ANCHOR:
        assert masks == [1, 2, 3, 3, 4, 5]
    else:
        assert masks == list(range(len(heads[0].opts["anchors"]))), "every anchor belongs to one head"
    coarse_first = sorted(heads, key=lambda h: -h.stride)
    areas = [np.mean([np.prod(h.opts["anchors"][m]) for m in h.opts["mask"]]) for h in coarse_first]
    assert areas == sorted(areas, reverse=True), "coarse heads have the large anchors"


@every_cfg
def test_every_convolution_says_what_readers_disagree_on(path):
    for section in read_cfg(path).layers:
        needed = {
            "convolutional": ("filters", "size", "stride", "pad", "activation"),
            "maxpool": ("size", "stride"),
            "upsample": ("stride",),
            "shortcut": ("from", "activation"),
            "dropout": ("probability",),
        }.get(section.type, ())
        assert [k for k in needed if section.get(k) is None] == [], section.place


@every_cfg
def test_counts_agree_with_a_plain_reading(path):
    profile = count(Graph(read_cfg(path)))
    parameters, macs = plain_count(path.read_text())
    assert profile.params == parameters
    assert profile.macs == pytest.approx(macs, rel=1e-3)


def test_the_published_numbers():
    """61,523,734 parameters and 32.645 G MACs are those of the cfg that the reference's results were made
    with.
    """
    hand = count(Graph(read_cfg(ROOT / "config" / "yolov3-hand.cfg")))
    assert hand.params == 61_523_734
    assert round(hand.macs / 1e9, 3) == 32.645
    assert count(Graph(read_cfg(ROOT / "config" / "yolov3.cfg"))).params == 61_949_149


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_weights_would_fit(name):
    size, weights, mebibytes, bflops, at = PUBLISHED[name]
    cfg = read_cfg(ROOT / "config" / f"{name}.cfg")
    with torch.device("meta"):  # shapes without memory
        model = Darknet(cfg)
        raws = model.train()(torch.zeros(2, 3, 64, 96))
    assert model.graph.input_shape == (3, size, size)
    assert [tuple(r.shape) for r in raws] == [(2, 3, 64 // s, 96 // s, 85) for s in head_strides(name)]
    assert model_bytes(model) == weights and f"{weights / 2**20:f}".startswith(mebibytes)
    # Darknet's sum has the shortcuts and pools in it, about a thousandth
    assert 2 * count(Graph(cfg, at, at)).macs / 1e9 == pytest.approx(bflops, abs=0.05 + 0.002 * bflops)


@pytest.mark.parametrize("name", ["yolov3-tiny-prn", "yolov4-tiny", "yolov7-tiny", "enet-coco"])
def test_opencv_computes_the_same_boxes(name, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (requirements.txt) is not installed")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip("this OpenCV has no Darknet importer: versions below 5 do")
    text = re.sub(r"(width|height)=\d+", r"\1=64", (ROOT / "config" / f"{name}.cfg").read_text())
    model = randomise(Darknet(parse_cfg(text, name)), 1)
    heads = [(h, model.convolutions()[model.graph.nodes[h.index].inputs[0]]) for h in model.heads]
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for (_, conv), raw in zip(heads, model.raw_heads(x), strict=True):
            conv.weight /= raw.std()  # no box so wide that its neighbours' errors drown in it
        ours = model(x)[0].numpy()
        for bn in model.batch_norms().values():
            bn.running_var += 1e-5 - 1e-6  # OpenCV has the smaller epsilon inside the root
    (tmp_path / "net.cfg").write_text(text)
    save_weights(model, tmp_path / "net.weights")
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "net.cfg"), str(tmp_path / "net.weights"))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setInput(x.numpy())
    outputs = net.forward([f"yolo_{h.index}" for h, _ in heads])
    theirs = np.concatenate(
        [o.reshape(-1, 3, 85).transpose(1, 0, 2).reshape(-1, 85) for o in outputs]
    )  # anchors, then cells, as here
    np.testing.assert_allclose(theirs[:, :4], ours[:, :4] / 64, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(theirs[:, 4], ours[:, 4], rtol=0, atol=2e-6)
    scores = ours[:, 4:5] * ours[:, 5:]
    shown = theirs[:, 5:] > 0  # OpenCV writes 0 for a class up to its threshold of 0.2
    assert 0.01 < shown.mean() < 0.99 and scores[~shown].max() < 0.2 + 2e-6
    np.testing.assert_allclose(theirs[:, 5:][shown], scores[shown], rtol=0, atol=2e-6)


def test_nano_is_small_and_has_the_shape_of_yolov3():
    nano, full = (
        Graph(read_cfg(ROOT / "config" / f"{name}.cfg")) for name in ("yolov3-nano-hand", "yolov3-hand")
    )
    assert 600_000 <= count(nano).params <= 1_000_000
    assert nano.input_shape == (3, 256, 256)
    for graph in (nano, full):
        downs = [n for n in graph.nodes if n.type == "convolutional" and n.opts["stride_x"] == 2]
        assert len(downs) == 5 and len(graph.heads) == 3
    assert (
        sum(n.type == "shortcut" for n in nano.nodes) == 7
        and sum(n.type == "shortcut" for n in full.nodes) == 23
    )


def test_hand_pictures_are_padded_and_blood_cells_stretched():
    flags = {p.stem: read_cfg(p).net.get("letter_box") for p in CONFIGS}
    assert {name for name, flag in flags.items() if flag == "1"} == {
        name for name in flags if name.endswith("-hand")
    } | {"yolov4-csp"}


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
    assert len(sizes) == 3941 and best.mean() > (
        0.855 if "tiny" in name else 0.88
    )  # COCO's nine anchors reach .67
