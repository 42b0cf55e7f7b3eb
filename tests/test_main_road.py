"""The main road of the README, command after command, with no flags but those that make it short."""

import json

import pytest
from commands import call, snapshot

from darkslim.network.cfg import read_cfg
from darkslim.network.graph import Graph
from darkslim.network.profile import count
from darkslim.network.weights import load_model

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride={}\npad=1\nactivation=leaky\n\n"
HEAD = (
    "[convolutional]\nsize=1\nstride=1\npad=1\nfilters=18\nactivation=linear\n\n"
    "[yolo]\nmask=0,1,2\nanchors=12,12, 24,24, 40,40\nclasses=1\nnum=3\njitter=.1\n"
)
CFG = (
    "[net]\nwidth=64\nheight=64\nchannels=3\nmomentum=0.9\ndecay=0.0005\nlearning_rate=0.001\nburn_in=2\nletter_box=1\n\n"
    + CONV.format(8, 2)
    + CONV.format(12, 2)
    + CONV.format(12, 1)
    + "[shortcut]\nfrom=-2\nactivation=linear\n\n"
    + CONV.format(16, 2)
    + HEAD
)
SHORT = ["--epochs", 1, "--batch_size", 4, "--n_cpu", 0, "--amp", "off", "--device", "cpu"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a command in an empty folder that holds the cfg; asserts that it succeeds and changes no file that
    was there.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/yolov3-hand.cfg").write_text(CFG)
    (tmp_path / "config/oxfordhand.data").write_text(
        "classes=1\ntrain=data/train.txt\nvalid=data/valid.txt\n"
        "names=data/oxfordhand.names\nbackup=checkpoints\n"
    )

    def go(name, *words):
        before = snapshot(tmp_path)
        code, lines, _ = call(capfd, name, [*words, "--json", f"{name}.report"])
        assert code == 0, lines
        after = snapshot(tmp_path)
        for path, old in before.items():
            if not path.endswith((".report", ".cache")) and "checkpoints" not in path:
                assert after.get(path) == old, f"{name} changed {path}"
        report = json.loads((tmp_path / f"{name}.report").read_text())
        return report, sorted(set(after) - set(before))

    return go


def test_from_pictures_to_a_finetuned_small_network(run, tmp_path):
    _, new = run("converter", "--generate", 12)
    assert {"data/train.txt", "data/valid.txt", "data/oxfordhand.names"} <= set(new)
    run("train", "--model_def", "config/yolov3-hand.cfg", *SHORT)
    dense = (tmp_path / "checkpoints/yolov3_ckpt.pth").read_bytes()
    run("train", "--model_def", "config/yolov3-hand.cfg", "-sr", "--s", 0.01, *SHORT)
    assert any(p.read_bytes() == dense for p in (tmp_path / "checkpoints").glob("*.pth")), (
        "the dense checkpoint is lost"
    )
    sparse = (tmp_path / "checkpoints/yolov3_ckpt.pth").read_bytes()
    cut, new = run("test_prune", "--percent", 0.5, "--n_cpu", 0, "--device", "cpu")
    assert {
        "config/prune_yolov3-hand.cfg",
        "checkpoints/prune_yolov3_ckpt.pth",
        "checkpoints/prune_yolov3_ckpt.weights",
    } <= set(new)
    assert (tmp_path / "checkpoints/yolov3_ckpt.pth").read_bytes() == sparse
    assert cut["params_after"] < cut["params_before"] and cut["max_abs_diff"] < 1e-4
    assert count(Graph(read_cfg("config/prune_yolov3-hand.cfg"))).params == cut["params_after"]
    pruned = (tmp_path / "checkpoints/prune_yolov3_ckpt.pth").read_bytes()
    tuned, new = run(
        "train",
        "--model_def",
        "config/prune_yolov3-hand.cfg",
        "-pre",
        "checkpoints/prune_yolov3_ckpt.pth",
        *SHORT,
    )
    assert (tmp_path / "checkpoints/prune_yolov3_ckpt.pth").read_bytes() == pruned
    assert tuned["checkpoint"] in new
    load_model("config/prune_yolov3-hand.cfg", tuned["checkpoint"])
    load_model("config/prune_yolov3-hand.cfg", "checkpoints/prune_yolov3_ckpt.weights")
    result, _ = run(
        "test",
        "--model_def",
        "config/prune_yolov3-hand.cfg",
        "--weights_path",
        tuned["checkpoint"],
        "--n_cpu",
        0,
    )
    assert result["map50"] == pytest.approx(tuned["map50"], abs=1e-4)
