"""What a run leaves on disk: nothing is overwritten, one run at a time, starts and targets."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from darkslim.base.errors import CheckpointError, FileError, RequestError, TrainingError, WeightsError
from darkslim.network.cfg import parse_cfg
from darkslim.network.checkpoints import load_checkpoint, save_checkpoint
from darkslim.network.darknet import Darknet
from darkslim.network.weights import save_weights
from darkslim.training.checkpointer import Checkpointer
from darkslim.training.start import Start, load_file, load_start, prefix_length, target_path

CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
TEXT = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n"
    + CONV
    + CONV
    + "[convolutional]\nfilters=6\nsize=1\nstride=1\npad=1\nactivation=linear\n[yolo]\nmask=0\nanchors=8,8\n"
    "num=1\nclasses=1\n"
)


def tiny(seed: int) -> Darknet:
    torch.manual_seed(seed)
    return Darknet(parse_cfg(TEXT))


def test_an_earlier_run_keeps_its_files(tmp_path):
    path, told = tmp_path / "net.pth", []
    save_checkpoint(path, tiny(1))
    save_checkpoint(tmp_path / "net.last.pth", tiny(2))
    before = path.read_bytes()
    with Checkpointer(path, {"cfg": "a"}, told.append) as checkpointer:
        checkpointer.save_state(tiny(3), {"optimizer": {}})
        checkpointer.keep(tiny(4), {})
        checkpointer.keep(tiny(5), {})
        assert (tmp_path / "net.lock").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "net.1.last.pth",
        "net.1.pth",
        "net.last.pth",
        "net.pth",
        "net.weights",
    ]
    assert (tmp_path / "net.1.pth").read_bytes() == before and len(told) == 2
    model = tiny(9)
    load_checkpoint(path, model)
    assert torch.equal(
        model.state_dict()["module_list.0.conv_0.weight"], tiny(5).state_dict()["module_list.0.conv_0.weight"]
    )


def test_state_comes_back_only_to_the_same_run(tmp_path):
    path = tmp_path / "net.pth"
    with Checkpointer(path, {"cfg": "a", "--epochs": 3}) as checkpointer:
        checkpointer.save_state(
            tiny(3), {"optimizer": {"state": {0: torch.ones(2)}}, "progress": {"epoch": 2}}
        )
    model = tiny(0)
    state = Checkpointer(path, {"cfg": "a", "--epochs": 3}).load_state(model)
    assert state["progress"]["epoch"] == 2 and torch.equal(state["optimizer"]["state"][0], torch.ones(2))
    with pytest.raises(TrainingError, match="made with --epochs 3, and this run has 4"):
        Checkpointer(path, {"cfg": "a", "--epochs": 4}).load_state(model)
    with pytest.raises(TrainingError, match="nothing to resume"):
        Checkpointer(tmp_path / "other.pth", {}).load_state(model)
    save_checkpoint(tmp_path / "plain.last.pth", model)
    with pytest.raises(CheckpointError, match="no training state"):
        Checkpointer(tmp_path / "plain.pth", {}).load_state(model)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    path = tmp_path / "net.pth"
    with Checkpointer(path, {}) as checkpointer:
        checkpointer.keep(tiny(1), {})
        before, model = path.read_bytes(), tiny(2)
        model.module_list[0][0].weight.data[0] = float("nan")
        with pytest.raises(CheckpointError, match="not finite"):
            checkpointer.keep(model, {})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pth", "net.weights"]


def test_a_second_run_is_locked_out(tmp_path, root):
    """Another process holds the lock; it dies by SIGKILL, and the lock with it."""
    path = tmp_path / "net.pth"
    code = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(root)!r})
        from darkslim.training.checkpointer import Checkpointer
        with Checkpointer({str(path)!r}, {{}}):
            print("held", flush=True)
            time.sleep(60)
    """)
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=f"another run .process {other.pid}. is writing"):
            Checkpointer(path, {}).__enter__()
    finally:
        other.kill()
        other.wait()
    with Checkpointer(path, {}) as checkpointer:
        checkpointer.keep(tiny(0), {})


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        Checkpointer(tmp_path / "file" / "net.pth", {}).__enter__()
    with pytest.raises(FileError, match="is a folder"):
        Checkpointer(tmp_path, {}).__enter__()


def test_backbone_files_fill_the_first_layers(tmp_path):
    source, model = tiny(1), tiny(2)
    save_weights(source, tmp_path / "whole.weights")
    data = (tmp_path / "whole.weights").read_bytes()
    floats = 4 * 4 + 3 * 4 * 9 + 4 * 4 + 4 * 4 * 9  # the first two convolutions
    (tmp_path / "back").write_bytes(data[: 20 + 4 * floats])
    (tmp_path / "short").write_bytes(data[: 20 + 4 * floats + 4])
    assert [prefix_length(model, tmp_path / n) for n in ("whole.weights", "back", "short")] == [4, 2, 0]
    began = load_file(model, tmp_path / "back")
    assert (began.content, began.layers) == ("backbone", 2) and "layers 0 to 1" in str(began)
    same = [
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), model.state_dict().values(), strict=True)
    ]
    assert all(same[:-2]) and not any(same[-2:])  # the head's kernel and bias stay as they were
    with pytest.raises(WeightsError, match="layer 2"):
        load_file(tiny(3), tmp_path / "short")


def test_the_folder_weights_is_searched(tmp_path):
    folder = tmp_path / "weights"
    assert str(load_start(tiny(0), None, folder)) == "random weights"
    folder.mkdir()
    (folder / "notes.txt").write_text("x" * 100)
    save_weights(tiny(1), folder / "b.weights")
    (folder / "a.conv.2").write_bytes(
        (folder / "b.weights").read_bytes()[: 20 + 4 * (4 * 4 + 108 + 4 * 4 + 144)]
    )
    began = load_start(tiny(0), None, folder)
    assert (began.content, began.path.name) == ("network", "b.weights")


def test_where_results_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random, network = Start("random"), Start("network", tmp_path / "prune_net.pth", 4)
    assert str(target_path(None, random, False, False, [])) == "checkpoints/yolov3_ckpt.pth"
    assert str(target_path(None, network, False, False, [])) == "checkpoints/yolov3_ckpt.pth"
    assert str(target_path(None, network, True, False, [])) == "checkpoints/prune_net_finetuned.pth"
    assert str(target_path(None, network, True, True, [])) == "checkpoints/prune_net_sparse.pth"
    (tmp_path / "prune_net.pth").write_text("")
    (tmp_path / "again.pth").symlink_to("prune_net.pth")
    with pytest.raises(RequestError, match="is read by this run"):
        target_path("again.pth", network, True, False, [tmp_path / "prune_net.pth"])
