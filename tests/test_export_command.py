"""export.py: what another program gives is what PyTorch gives; what differs is refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, check, perform, picture, snapshot, tiny_model, write

from darkslim.base.errors import FileError, RequestError
from darkslim.deploy import onnx_file
from darkslim.deploy.onnx_runtime import OnnxNetwork
from darkslim.network.weights import load_model, save_weights

pytest.importorskip("onnxruntime", reason="pip install onnx onnxscript onnxruntime")
# a shortcut, a route of two, a pool and an upsampling that the exporter's algebra of sizes does not follow
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
    model, network = load_model("net.cfg", "net.weights"), OnnxNetwork("net.onnx")
    for shape in ((1, 3, 32, 32), (5, 3, 32, 32), (2, 3, 64, 96)):
        x = torch.rand(shape)
        with torch.no_grad():
            np.testing.assert_allclose(network(x), model(x), rtol=1e-3, atol=1e-3)
    told = network.metadata
    assert json.loads(told["names"]) == ["red", "green"] and told["cfg"] == model.cfg.text
    assert told["sizes"] == said["sizes"] == "any that the network takes"
    assert told["input_rule"] == "stretch" and json.loads(told["anchors"]) == [[[9.0, 9.0]]]
    code, err, _ = run("--no_eval", "--fuse-bn", "--out", "fused.onnx")
    assert code == 0
    with torch.no_grad():
        np.testing.assert_allclose(OnnxNetwork("fused.onnx")(x), model(x), rtol=1e-3, atol=1e-2)


def test_of_one_size_where_the_exporter_cannot_follow_sizes(run):
    words = ("--model_def", "wide.cfg", "--weights", "wide.weights", "--no_eval", "--json", "a.json")
    code, err, out = run(*words)
    assert code == 0 and not err, err
    model, network = load_model("wide.cfg", "wide.weights"), OnnxNetwork("wide.onnx")
    sizes = json.loads(Path("a.json").read_text())["sizes"]
    assert sizes in out
    for batch in (1, 5):
        x = torch.rand(batch, 3, 32, 32)
        with torch.no_grad():
            np.testing.assert_allclose(network(x), model(x), rtol=1e-3, atol=1e-3)


def test_boxes_that_differ_are_refused(run, monkeypatch):
    class Off(OnnxNetwork):
        def forward(self, x):
            return super().forward(x) + 0.5

    monkeypatch.setattr(importlib.import_module("darkslim.pipelines.export"), "OnnxNetwork", Off)
    before = snapshot(Path("."))
    code, err, _ = run("--no_eval")
    assert code == 3 and len(err) == 1 and "differs by 0.5" in err[0] and snapshot(Path(".")) == before


@pytest.mark.parametrize(
    "words, where, text",
    [
        (["--out", "a.pth"], "--out", "ends in .onnx"),
        (["--weights", "none.pth"], "none.pth", "no such"),
        (["--json", "net.cfg"], "--json", "another"),
    ],
)
def test_requests_that_are_refused(run, words, where, text):
    before = snapshot(Path("."))
    code, err, _ = run(*words)
    check(code, err, where, text)
    assert snapshot(Path(".")) == before


def test_a_library_that_is_missing_and_a_file_that_is_none(run, monkeypatch):
    write(Path("bad.onnx"), b"no such thing")
    with pytest.raises(FileError, match="cannot read it"):
        OnnxNetwork("bad.onnx")
    with pytest.raises(RequestError, match="pip install nothing_of_that_name"):
        onnx_file.library("nothing_of_that_name")
