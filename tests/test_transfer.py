"""Weights of another number of classes, and those of other programs."""

from __future__ import annotations

import argparse
import re
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from commands import TINY, make_bench, perform, tiny_model, write

from darkslim.base.errors import CheckpointError
from darkslim.network.cfg import parse_cfg
from darkslim.network.cfg_classes import for_data
from darkslim.network.checkpoints import read_checkpoint, save_checkpoint
from darkslim.network.darknet import Darknet
from darkslim.network.weights import load_model, save_weights
from darkslim.training.start import load_file, load_start


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


SECOND = "[route]\nlayers=0\n\n[convolutional]\nfilters=7\nsize=1\nstride=1\npad=1\nactivation=linear\n\n"
SECOND += "[yolo]\nmask=0\nanchors=9,9\nnum=1\nclasses=2\n"


@pytest.mark.parametrize("suffix", (".weights", ".pth"))
@pytest.mark.parametrize("classes", (1, 3, 80))
@pytest.mark.parametrize("heads", (1, 2))
def test_all_but_the_heads(tmp_path, suffix, classes, heads):
    text = TINY + (SECOND if heads == 2 else "")
    theirs = Darknet(for_data(parse_cfg(text, "net.cfg"), classes))
    path = tmp_path / f"a{suffix}"
    (save_weights(theirs, path) if suffix == ".weights" else save_checkpoint(path, theirs))
    torch.manual_seed(1)
    model = Darknet(parse_cfg(text, "net.cfg"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    start = load_file(model, path)
    layers = (1,) if heads == 1 else (1, 4)
    assert (start.content, start.classes, start.heads) == ("transfer", classes, layers)
    for key, value in model.state_dict().items():
        source = before if int(key.split(".")[1]) in layers else theirs.state_dict()
        assert torch.equal(value, source[key]), key


def test_the_command_says_so_and_the_same_classes_are_strict(bench):
    save_weights(Darknet(for_data(parse_cfg(TINY, "net.cfg"), 5)), "five.weights")
    code, said = perform(bench.capfd, "train", bench.words("train", ["-pre", "five.weights"]))
    assert (
        code == 0 and "five.weights, made for 5 classes: layers 1 (before the heads) stay random" in said.out
    )
    assert "checkpoints/yolov3_ckpt.pth" in said.out  # a new network, not a finetuned one
    write(bench.folder / "cut.weights", (bench.folder / "five.weights").read_bytes()[:-4])
    bench.refused("train", "cut.weights", "bytes long", "-pre", "cut.weights")
    bench.refused("test", "five.weights", "bytes long", "--weights_path", "five.weights")


def test_files_in_weights_are_used_or_named(bench):
    folder = bench.folder / "weights"
    write(folder / "notes.txt", "what I downloaded")
    write(folder / "yolov3.weights", b"\0\0\0\0\2\0\0\0\5\0\0\0" + bytes(100))
    code, said = perform(bench.capfd, "train", bench.words("train", []))
    assert code == 0 and "start: random weights" in said.out
    for name in ("notes.txt", "yolov3.weights"):
        assert f"weights/{name} does not fit net.cfg and is not used" in said.out
    save_weights(Darknet(for_data(parse_cfg(TINY, "net.cfg"), 80)), folder / "coco.weights")
    code, said = perform(bench.capfd, "train", bench.words("train", []))
    assert "start: weights/coco.weights, made for 80 classes" in said.out
    save_checkpoint(folder / "mine.pth", tiny_model())
    assert str(load_start(tiny_model(), None)) == "weights/mine.pth"


def renamed(state: dict, layer_form: str, norm_form: str) -> OrderedDict:
    found = OrderedDict()
    for key, value in state.items():
        match = re.fullmatch(r"module_list\.(\d+)\.(conv|batch_norm)_\d+\.(\w+)", key)
        form = layer_form if match[2] == "conv" else norm_form
        found[form.format(match[1], match[3])] = value
    return found


FORMS = {
    "ultralytics": ("module_list.{0}.Conv2d.{1}", "module_list.{0}.BatchNorm2d.{1}"),
    "marvis": ("models.{0}.conv1.{1}", "models.{0}.bn1.{1}"),
}


@pytest.mark.parametrize("name", FORMS)
def test_checkpoints_of_other_programs(bench, name):
    model = tiny_model()
    state = renamed(model.state_dict(), *FORMS[name])
    state["module_list.0.total_ops"] = torch.zeros(1, dtype=torch.float64)
    state["module_list.2.anchor_vec"] = torch.zeros(3, 2)
    extra = {
        "epoch": 3,
        "best_fitness": np.float64(0.5),
        "opt": argparse.Namespace(epochs=3),
        "optimizer": None,
    }
    extra |= {"maps": [np.float32(1), np.int64(2)], "training_results": "text"}
    torch.save({"model": state, **extra}, "theirs.pth")
    with pytest.warns(UserWarning, match="keys are named as in another program and 2 that are no weights"):
        loaded = load_model("net.cfg", "theirs.pth")
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    code, lines = bench.run("test", "--weights_path", "theirs.pth")
    assert code == 0 and len(lines) == 1


def test_what_cannot_be_read_says_how(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "whole.pth")
    with pytest.raises(
        CheckpointError, match=r"save model.state_dict\(\) instead of the whole model, in the"
    ):
        read_checkpoint(tmp_path / "whole.pth")


def test_ours_loads_elsewhere(tmp_path):
    """docs/files.md: the state dict is `["model"]`, all of it tensors."""
    model = tiny_model()
    save_checkpoint(tmp_path / "a.pth", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert set(state) == set(model.state_dict()) and all(isinstance(v, torch.Tensor) for v in state.values())
