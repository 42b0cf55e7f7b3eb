"""export.py: what another program gives is what PyTorch gives; what differs is refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, check, perform, picture, snapshot, tiny_model, write

from darkslim import evaluation
from darkslim.base.errors import FileError
from darkslim.deploy import int8
from darkslim.deploy.engine_onnxruntime import OnnxRuntime
from darkslim.network import rounding
from darkslim.network.weights import load_model, save_weights
from darkslim.pruning.fuse import fuse

pytest.importorskip("onnxruntime", reason="pip install onnx onnxruntime")
# a shortcut, a route of two, pools and an upsampling
WIDE = TINY.replace("stride=4", "stride=2").replace(
    "[convolutional]\nfilters=7",
    "[maxpool]\nsize=2\nstride=1\n\n[shortcut]\nfrom=-2\nactivation=mish\n\n[maxpool]\nsize=2\nstride=2\n\n"
    "[upsample]\nstride=2\n\n[route]\nlayers=-1,-3\n\n[convolutional]\nfilters=7",
)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.cfg", TINY)
    save_weights(tiny_model(), "net.weights")
    write(tmp_path / "wide.cfg", WIDE)
    save_weights(tiny_model(WIDE), "wide.weights")
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", (40, 30))
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    write(tmp_path / "list.txt", "".join(f"images/{i}.png\n" for i in range(3)))
    write(tmp_path / "two.names", "red\ngreen\n")
    write(tmp_path / "two.data", "classes=2\ntrain=list.txt\nvalid=list.txt\nnames=two.names\n")
    common = ["--model_def", "net.cfg", "--weights", "net.weights", "--data_config", "two.data"]

    def go(*words):
        words = [*common, "--device", "cpu", "--n_cpu", "0", *map(str, words)]
        code, said = perform(capfd, "export", words)
        return code, [line for line in said.err.splitlines() if "warn" not in line], said.out

    return go


def test_boxes_of_another_program_at_any_batch_and_size(run):
    code, err, out = run("--json", "a.json")
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert said["file"] == "net.onnx" and said["bytes"] == Path("net.onnx").stat().st_size
    assert said["compared"] == 7 and said["max_abs_diff"] < 1e-2
    assert said["map50_float"] == pytest.approx(said["map50_exported"], abs=1e-6) and "exported" in out
    model, network = load_model("net.cfg", "net.weights"), OnnxRuntime("net.onnx")
    for shape in ((1, 3, 32, 32), (5, 3, 32, 32), (2, 3, 64, 96)):
        x = torch.rand(shape)
        with torch.no_grad():
            np.testing.assert_allclose(network(x), model(x), rtol=1e-3, atol=1e-3)
    told = network.session.get_modelmeta().custom_metadata_map
    assert json.loads(told["names"]) == ["red", "green"] and told["cfg"].startswith("[net]")
    assert said["sizes"] == "any that the network takes"
    assert told["input_rule"] == "stretch" and json.loads(told["anchors"]) == [[[9.0, 9.0]]]


@pytest.mark.parametrize(
    "name, ends, library",
    [
        ("torchscript", [".pt"], "torch"),
        ("openvino", [".xml", ".bin"], "openvino"),
        ("ncnn", [".param", ".bin", ".json"], "ncnn"),
        ("darknet", [".weights", ".cfg"], "torch"),
    ],
)
def test_every_format_is_measured_by_test_and_read_by_detect(run, capfd, name, ends, library):
    pytest.importorskip(library)
    code, err, out = run("--format", name, "--json", "a.json")
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    stem = "net_fused" if name == "darknet" else "net"
    assert said["files"] == [stem + end for end in ends] and all(Path(p).exists() for p in said["files"])
    assert said["map50_exported"] == pytest.approx(said["map50_float"], abs=1e-6)
    assert said["bytes"] == sum(Path(p).stat().st_size for p in said["files"])
    common = ["--device", "cpu", "--n_cpu", "0"]
    file = said["file"]
    if name == "darknet":
        assert "batch_normalize" not in Path("net_fused.cfg").read_text()
        network = ["--model_def", "net_fused.cfg", "--weights_path", file]
    else:
        network = ["--exported", file]
    words = [*common, *network, "--data_config", "two.data", "--json", "b.json"]
    code, told = perform(capfd, "test", words)
    assert code == 0, told.err
    scored = json.loads(Path("b.json").read_text())
    assert scored["map50"] == pytest.approx(said["map50_float"], abs=1e-6) and scored["weights"] == file
    words = [*common, *network, "--source", "images", "--conf_thres", "0", "--json", "c.json"]
    assert perform(capfd, "detect", words)[0] == 0
    found = json.loads(Path("c.json").read_text())["detections"]
    plain = ["--model_def", "net.cfg", "--weights_path", "net.weights"]
    assert perform(capfd, "detect", [*common, *plain, *words[-6:-1], "d.json"])[0] == 0
    wanted = json.loads(Path("d.json").read_text())["detections"]
    assert [len(row["detections"]) for row in found] == [len(row["detections"]) for row in wanted]
    if name != "darknet":  # the names travel in the file
        assert {one["name"] for row in found for one in row["detections"]} <= {"red", "green"}


def test_float16_is_half_of_the_numbers_and_compared_with_itself(run):
    write(Path("net.cfg"), TINY.replace("filters=6", "filters=512"))
    save_weights(tiny_model(Path("net.cfg").read_text()), "net.weights")
    assert run("--no_eval")[0] == 0 and run("--no_eval", "--half", "--out", "half.onnx")[0] == 0
    whole, half = (Path(f"{name}.onnx").stat().st_size for name in ("net", "half"))
    assert half < 0.7 * whole


def test_suppression_inside_finds_what_is_found_here(run):
    code, err, _ = run("--nms", "--conf_thres", "0.3", "--nms_thres", "0.4", "--out", "nms.onnx")
    assert code == 0 and not err, err
    session = importlib.import_module("onnxruntime").InferenceSession("nms.onnx")
    x = torch.rand(3, 3, 32, 32)
    (rows,) = session.run(None, {"images": x.numpy()})
    with torch.no_grad():
        wanted = evaluation.detections(load_model("net.cfg", "net.weights")(x), 0.3, 0.4)
    assert len(rows) and rows.shape[1] == 7
    for i, mine in enumerate(wanted):
        its = rows[rows[:, 0] == i][:, 1:]
        order = np.lexsort((its[:, 0], -its[:, 4]))
        np.testing.assert_allclose(its[order], mine.numpy()[np.lexsort((mine[:, 0], -mine[:, 4]))], atol=1e-3)
    with pytest.raises(FileError, match="without --nms"):
        OnnxRuntime("nms.onnx")


def test_eight_bits_by_measurement(run):
    write(Path("net.cfg"), WIDE)
    save_weights(tiny_model(WIDE), "net.weights")
    code, err, out = run("--int8", "--json", "a.json")
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert said["file"] == "net_int8.onnx" and said["calibrated"] == 3 and said["tried"]
    heads = [source for head in tiny_model(WIDE).graph.heads for source in [head - 1]]
    assert set(heads) <= set(said["kept_float"]) and "8 bits" in out
    onnx = importlib.import_module("onnx")
    kinds = {node.op_type for node in onnx.load("net_int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    model, network = load_model("net.cfg", "net.weights"), OnnxRuntime("net_int8.onnx")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        apart = (network(x) - model(x)).abs()
    assert 0 < float(apart[..., 4:].max()) < 0.1  # shares; other than in float32, and near
    pytest.importorskip("openvino")
    assert run("--int8", "--format", "openvino")[0] == 0 and Path("net_int8.bin").exists()


def test_biases_make_up_for_the_rounding_of_kernels():
    model = fuse(tiny_model(WIDE))
    batches = [torch.rand(4, 3, 32, 32) for _ in range(8)]
    found = int8.corrected(model, batches)
    with torch.no_grad():
        errors = []
        for network in (model, found):  # kernels rounded, with the biases of before and of after
            errors.append([])
            for i, conv in network.convolutions().items():
                inputs = []
                hook = model.convolutions()[i].register_forward_pre_hook(
                    lambda _, x, to=inputs: to.append(x[0])
                )
                wanted = []
                after = model.convolutions()[i].register_forward_hook(
                    lambda _, x, y, to=wanted: to.append(y.clone())
                )
                model(batches[0])
                hook.remove(), after.remove()
                made = torch.nn.functional.conv2d(
                    inputs[0],
                    rounding.rounded(conv.weight),
                    conv.bias,
                    conv.stride,
                    conv.padding,
                    1,
                    conv.groups,
                )
                errors[-1].append(float((made - wanted[0]).mean((0, 2, 3)).abs().mean()))
    assert all(b < a for a, b in zip(*errors, strict=True)), errors


def test_boxes_that_differ_are_refused(run, monkeypatch):
    class Off(OnnxRuntime):
        def forward(self, x):
            return super().forward(x) + 0.5

    monkeypatch.setattr(importlib.import_module("darkslim.deploy.engines"), "OnnxRuntime", Off)
    before = snapshot(Path("."))
    code, err, _ = run("--no_eval")
    assert code == 3 and len(err) == 1 and "differs by 0.5" in err[0] and snapshot(Path(".")) == before


@pytest.mark.parametrize(
    "words, where, text",
    [
        (["--out", "a.pth"], "--out", "ends in .onnx"),
        (["--format", "ncnn", "--out", "a.bin"], "--out", "ends in .param"),
        (["--weights", "none.pth"], "none.pth", "no such"),
        (["--json", "net.cfg"], "--json", "another"),
        (["--format", "darknet", "--out", "net.weights"], "--out", "net.weights"),
        (["--format", "torchscript", "--half"], "--half", "onnx or openvino or ncnn"),
        (["--format", "ncnn", "--int8"], "--int8", "onnx or openvino"),
        (["--format", "openvino", "--nms"], "--nms", "onnx"),
        (["--int8", "--half"], "--int8", "one of them"),
        (["--int8", "--no_eval"], "--int8", "pictures"),
    ],
)
def test_requests_that_are_refused(run, words, where, text):
    before = snapshot(Path("."))
    code, err, _ = run(*words)
    check(code, err, where, text)
    assert snapshot(Path(".")) == before
