"""A second opinion: OpenCV's Darknet importer computes from the written files what is promised here.

Wherever OpenCV reads the original, it must read the pruned network, with batch norms and with `fuse`. It puts
1e-6 inside the root of a batch norm where Darknet has 1e-5, so unfused files are compared with our networks
at 1e-6, and fused ones at 1e-5. The reference is the *masked original* in float64: the cut is judged, too.

DARKSLIM_NETWORKS=300 draws more networks than the default.
"""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from random_cfgs import random_cfg, randomise
from test_golden import FAMILIES

from darkslim.base.errors import RequestError
from darkslim.network import renorm
from darkslim.network.cfg import Cfg, parse_cfg, read_cfg
from darkslim.network.channels import STRATEGIES
from darkslim.network.darknet import Darknet
from darkslim.network.heads import decode
from darkslim.network.twins import twin
from darkslim.network.weights import load_model, save_weights
from darkslim.pruning.fuse import fuse
from darkslim.pruning.parts import batch_norm, convolution
from darkslim.pruning.plan import PrunePlan, mask, plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import save_proven

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (requirements.txt) is not installed")
if not hasattr(cv2.dnn, "readNetFromDarknet"):
    pytest.skip("this OpenCV has no Darknet importer: versions below 5 do", allow_module_level=True)

NETWORKS = min(int(os.environ.get("DARKSLIM_NETWORKS", "16")), 300)
BLOCK = 8
DARKNET_EPS, OPENCV_EPS = 1e-5, 1e-6
TOLERANCE = 1e-5  # of the largest value of all head maps
MISREAD = ("dilation", "scale", "weights_type", "weights_normalization")  # keys that it skips in silence
ACTIVATIONS = ("linear", "leaky", "relu", "logistic", "tanh", "swish", "mish")


def readable(cfg: Cfg) -> Cfg:
    """The cfg without what OpenCV rejects (activations) or skips in silence."""
    cfg = cfg.copy()
    for section in cfg.layers:
        for key in MISREAD:
            section.drop(key)
        if section.get("activation", "linear") not in ACTIVATIONS:
            section.set("activation", "leaky")
        if section.type == "shortcut":
            section.set("from", section.get("from").split(",")[0])
    return cfg


def family(golden: Path, name: str) -> Darknet:
    """A golden network; with random parameters where its cfg had to change."""
    cfg = read_cfg(golden / name / "net.cfg")
    plain = readable(cfg)
    if plain.text == cfg.text:
        return load_model(cfg, golden / name / "net.weights")
    return randomise(Darknet(plain), 1)


def write(model: Darknet, folder: Path) -> tuple[Path, Path]:
    """The files of a network, cfg and .weights."""
    paths = folder / "net.cfg", folder / "net.weights"
    paths[0].write_bytes(model.cfg.to_bytes())
    save_weights(model, paths[1])
    return paths


def opened(paths: tuple[Path, Path], winograd: bool = False):
    """The network that OpenCV makes of a cfg and its weights. Its default, Winograd convolutions, costs a
    digit.
    """
    net = cv2.dnn.readNetFromDarknet(*map(str, paths))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    net.enableWinograd(winograd)
    return net


def image(model: Darknet, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, *model.graph.input_shape), dtype=np.float32)


def theirs(net, model: Darknet, x: np.ndarray) -> list[np.ndarray]:
    """The raw map in front of each head, channels last, as OpenCV has it."""
    net.setInput(x)
    return net.forward([f"permute_{head.index}" for head in model.heads])


class Reference:
    """The original with cut channels masked, in float64."""

    def __init__(self, model: Darknet, plan_: PrunePlan | None = None):
        self.model = mask(twin(model, "cpu", torch.float64), plan_.keep if plan_ else {}).eval()

    def at(self, eps: float) -> Darknet:
        """The network with another epsilon in its batch norms."""
        for bn in self.model.batch_norms().values():
            bn.eps = eps
        return self.model

    def maps(self, x: np.ndarray, eps: float) -> list[np.ndarray]:
        """Raw head maps, channels last."""
        with torch.inference_mode():
            raws = self.at(eps).raw_heads(torch.from_numpy(x).double())
        return [raw.permute(0, 2, 3, 1, 4).flatten(3).numpy() for raw in raws]


def apart(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest difference relative to the largest value; NaN where there is one."""
    assert [m.shape for m in found] == [m.shape for m in expected]
    return float(
        np.max([np.abs(a - b).max() for a, b in zip(found, expected, strict=True)])
        / max(np.abs(m).max() for m in expected)
    )


def carriers(model: Darknet) -> dict[int, np.ndarray]:
    """Layer -> the constant channels of a compact network, for the layers that have any."""
    found = {
        layer: np.flatnonzero(bn.weight.detach().numpy() == 0) for layer, bn in model.batch_norms().items()
    }
    return {layer: at for layer, at in found.items() if len(at)}


def check_cut(
    model: Darknet, folder: Path, winograd: tuple[bool, ...] = (False,), **request
) -> tuple[int, int]:
    """Prunes, writes, and compares OpenCV's reading with the masked original, unfused and fused.

    Returns:
        how many channels were cut, and how many of them stay as carriers.
    """
    p = plan(model, **request)
    compact, reference, x = apply(model, p), Reference(model, p), image(model)
    unfused = apart(theirs(opened(write(compact, folder)), compact, x), reference.maps(x, OPENCV_EPS))
    paths, expected = write(fuse(compact), folder), reference.maps(x, DARKNET_EPS)
    fused = [apart(theirs(opened(paths, how), compact, x), expected) for how in winograd]
    assert all(d <= TOLERANCE for d in (unfused, *fused)), (
        f"{model.cfg.path} {request}: unfused {unfused:.1e}, fused {fused}"
    )
    return p.cut, sum(map(len, carriers(compact).values()))


@pytest.mark.parametrize("name", [f for f in FAMILIES if f != "reorg3d"])
def test_families_pruned(golden, name, tmp_path):
    model = family(golden, name)
    x = image(model)
    assert (
        apart(theirs(opened(write(model, tmp_path)), model, x), Reference(model).maps(x, OPENCV_EPS))
        <= TOLERANCE
    )
    for strategy in ("normal", "slim"):  # the others cut the classes that slim does, in another order
        assert check_cut(model, tmp_path, (False, True), percent=0.5, strategy=strategy)[0] > 0


def drawn(seed: int) -> Darknet | None:
    """A random network that OpenCV reads; None if it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = readable(parse_cfg(random_cfg(seed, rare=seed % 4 > 0), f"random-{seed}.cfg"))
        model = randomise(Darknet(cfg), seed)
    after = [i for node in model.graph.nodes for i in node.inputs if i in model.graph.heads]
    return (
        None if after or any(node.type == "reorg3d" for node in model.graph.nodes) else model
    )  # its heads are tables, not maps


@pytest.mark.parametrize("first", range(0, NETWORKS, BLOCK))
def test_random_networks_pruned(first, tmp_path):
    cut = constants = 0
    for seed in range(first, min(first + BLOCK, NETWORKS)):
        model, rng = drawn(seed), random.Random(seed)
        request = {
            "percent": rng.choice((0.3, 0.6, 0.9)),
            "round_to": rng.choice((1, 1, 4)),
            "strategy": rng.choice(STRATEGIES),
        }
        try:
            found = check_cut(model, tmp_path, **request) if model else (0, 0)
        except RequestError as e:
            assert "nothing can be pruned" in str(e)
            continue
        cut, constants = cut + found[0], constants + found[1]
    assert cut > 0 and constants > 0


def test_the_random_networks_are_worth_drawing():
    """Most can be read, and every section type that OpenCV reads comes up."""
    networks = [model for seed in range(16) if (model := drawn(seed))]
    kinds = {node.type for model in networks for node in model.graph.nodes}
    grouped = {
        (node.type, node.opts["groups"] == node.in_shapes[0][0])
        for model in networks
        for node in model.graph.nodes
        if node.opts.get("groups", 1) > 1
    }
    assert len(networks) >= 12
    assert kinds >= {
        "convolutional",
        "shortcut",
        "route",
        "maxpool",
        "upsample",
        "avgpool",
        "scale_channels",
        "sam",
        "reorg",
        "dropout",
    }
    assert {("convolutional", False), ("convolutional", True), ("route", False)} <= grouped


def test_what_opencv_does_not_read(golden, tmp_path):
    """The reasons for `readable`: once OpenCV learns one of these, the tests above should take it in."""
    with pytest.raises(cv2.error, match="reorg3d"):
        opened((golden / "reorg3d" / "net.cfg", golden / "reorg3d" / "net.weights"))
    for name in ("odd-kernels", "weighted-shortcut"):  # dilation, weights_type
        model = load_model(golden / name / "net.cfg", golden / name / "net.weights")
        x = image(model)
        found = theirs(opened((golden / name / "net.cfg", golden / name / "net.weights")), model, x)
        assert not apart(found, Reference(model).maps(x, OPENCV_EPS)) < 0.01


@pytest.mark.parametrize("strategy", ["normal", "slim"])
def test_carriers_are_read_as_constants(golden, tmp_path, strategy):
    """Channels with gamma 0 are in the files, OpenCV reads them, and without their constants its answer is
    another.
    """
    model = family(golden, "yolov3")
    p = plan(model, percent=0.5, strategy=strategy)
    compact, x = apply(model, p), image(model)
    constants = carriers(compact)
    assert len(constants) >= 3
    expected = Reference(model, p).maps(x, DARKNET_EPS)
    fused = fuse(compact)
    for layer, at in constants.items():
        conv = convolution(fused, layer)
        assert not conv.weight[at].any() and torch.equal(conv.bias[at], batch_norm(compact, layer).bias[at])
    assert apart(theirs(opened(write(fused, tmp_path)), compact, x), expected) <= TOLERANCE
    with torch.no_grad():
        for layer, at in constants.items():
            convolution(fused, layer).bias[at] = 0.0
    assert apart(theirs(opened(write(fused, tmp_path)), compact, x), expected) > 1e-3


def test_tiny_variances_are_why_networks_are_fused(golden, tmp_path):
    model = family(golden, "tiny-variance")
    x, p = image(model), plan(model, percent=0.5)
    compact = apply(model, p)
    expected = Reference(model, p).maps(x, DARKNET_EPS)
    assert apart(theirs(opened(write(compact, tmp_path)), compact, x), expected) > 1  # not a digit is right
    assert apart(theirs(opened(write(fuse(compact), tmp_path)), compact, x), expected) <= TOLERANCE


def test_norms_said_anew_are_read_alike(golden, tmp_path, monkeypatch):
    """Of layers that hardly make anything any more, where the statistics of now are tiny variances."""

    def both(least: float) -> float:
        monkeypatch.setattr(renorm, "LEAST", least)
        model = family(golden, "yolov3-tiny")
        with torch.no_grad():
            for layer, bn in model.batch_norms().items():  # what is left of them is made much of
                for small in (convolution(model, layer).weight, bn.running_mean):
                    small[::3] *= 1e-3
                bn.weight[::3] *= 1e3
        x = image(model)
        renorm.renormalize(model, [torch.from_numpy(x)])
        expected = Reference(model).maps(x, DARKNET_EPS)
        return apart(theirs(opened(write(model, tmp_path)), model, x), expected)

    kept, plain = both(renorm.LEAST), both(0.0)
    assert kept <= 3e-3 and plain > 30 * kept, (kept, plain)


@pytest.mark.parametrize(
    "name", ["yolov3", "yolov4", "yolov4-csp", "yolov7-tiny", "yolov2", "enet", "non-square-grey"]
)
def test_boxes_of_pruned_networks(golden, name, tmp_path):
    """The rows that an application sees: x, y, w, h as shares of the picture, objectness, objectness *
    class.
    """
    model = family(golden, name)
    p = plan(model, percent=0.5)
    compact, x = fuse(apply(model, p)), image(model)
    paths = [tmp_path / f"net{end}" for end in (".cfg", ".pth", ".weights")]
    save_proven(compact, *paths)
    every = compact.cfg.copy()
    for head in compact.heads:  # keys of OpenCV's own: by default it zeroes class scores up to 0.2
        every.layers[head.index].set("thresh", 0)
        every.layers[head.index].set("nms_threshold", 0)
    (tmp_path / "every.cfg").write_bytes(every.to_bytes())
    net = opened((tmp_path / "every.cfg", paths[2]))
    net.setInput(x)
    rows = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))
    expected = expected_rows(Reference(model, p).at(DARKNET_EPS), x)
    assert rows.shape == expected.shape
    if model.heads[0].kind == "region":  # suppressed scores are 0: OpenCV cannot be kept from its NMS here
        assert (rows[:, 5:].max(0) > 0).all()
        expected[:, 5:][rows[:, 5:] == 0] = 0
    assert (np.abs(rows - expected).max(0) <= TOLERANCE * np.maximum(expected.max(0), 1)).all()
    plain = opened(
        (paths[0], paths[2])
    )  # the written files with its thresholds: the same boxes, weak scores left out
    plain.setInput(x)
    few = np.concatenate(plain.forward(plain.getUnconnectedOutLayersNames()))
    assert np.array_equal(few[:, :5], rows[:, :5]) and ((few[:, 5:] == rows[:, 5:]) | (few[:, 5:] == 0)).all()


def expected_rows(reference: Darknet, x: np.ndarray) -> np.ndarray:
    """Our boxes in OpenCV's order: by cell, then by anchor; (boxes, 5 + classes)."""
    height, width = x.shape[2:]
    with torch.inference_mode():
        raws = reference.raw_heads(torch.from_numpy(x).double())
        boxes = [
            decode(raw, head, (height, width)).view(raw.shape).permute(0, 2, 3, 1, 4).flatten(0, 3)
            for raw, head in zip(raws, reference.heads, strict=True)
        ]
    rows = torch.cat(boxes).numpy()
    rows[:, :4] /= (width, height, width, height)
    rows[:, 5:] *= rows[:, 4:5]
    return rows
