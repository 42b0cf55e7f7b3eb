"""train.py as a command."""

from __future__ import annotations

import json
import signal

import forked
import numpy as np
import pytest
import torch
from commands import make_bench, perform
from PIL import Image

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=2\npad=1\nactivation=leaky\n\n"
CFG = (
    "[net]\nwidth=64\nheight=64\nchannels=3\nlearning_rate=0.005\nmomentum=0.9\ndecay=0.0005\nburn_in=4\n\n"
    + CONV.format(8)
    + CONV.format(8)
    + CONV.format(12)
    + "[convolutional]\nfilters=14\nsize=1\nstride=1\npad=1\nactivation=linear\n\n"
    + "[yolo]\nmask=0,1\nanchors=12,12, 28,28\nnum=2\nclasses=2\njitter=.1\n"
)


@pytest.fixture
def place(tmp_path):
    """A folder with a network and eight training images, four of them for validation too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
        cls, x, y = i % 2, int(rng.integers(4, 36)), int(rng.integers(4, 36))
        pixels[y : y + 24, x : x + 24, cls] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.jpg")
        (tmp_path / "labels" / f"{i}.txt").write_text(f"{cls} {(x + 12) / 64} {(y + 12) / 64} 0.375 0.375\n")
    names = [f"images/{i}.jpg\n" for i in range(8)]
    (tmp_path / "train.txt").write_text("".join(names))
    (tmp_path / "valid.txt").write_text("".join(names[:4]))
    (tmp_path / "two.names").write_text("red\ngreen\n")
    (tmp_path / "two.data").write_text("classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=two.names\n")
    (tmp_path / "net.cfg").write_text(CFG)
    return tmp_path


ALWAYS = "--model_def net.cfg --data_config two.data --batch_size 4 --n_cpu 0 --amp off".split()


@pytest.fixture
def run(place, capfd, monkeypatch):
    """train.py in this process: (exit code, stderr, stdout)."""
    monkeypatch.chdir(place)

    def go(*flags: str) -> tuple[int, str, str]:
        code, said = perform(capfd, "train", [*ALWAYS, *flags])
        return code, said.err, said.out

    return go


def start(place, *flags: str) -> forked.Process:
    """train.py as a process, for what only a process can get: a signal."""
    return forked.start("train", [*ALWAYS, *flags], place)


def made(place) -> list[str]:
    """What a run could have left behind."""
    return sorted(str(p.relative_to(place)) for f in ("checkpoints", "logs") for p in (place / f).rglob("*"))


@pytest.mark.draws
def test_sparse_training_from_start_to_end(place, run):
    code, err, out = run(
        "--epochs", "3", "-sr", "--s", "2", "--json", "out.json", "--evaluation_interval", "2"
    )
    assert code == 0, err
    report = json.loads((place / "out.json").read_text())
    rates = [row["lr"] for row in report["history"]]
    assert len(rates) == 3 and report["steps"] == 6 and report["seed"] == 0 and report["kept"] == "last"
    assert [("map50" in row) for row in report["history"]] == [False, True, True]
    assert all(len(row["gamma_quintiles"]) == 6 for row in report["history"])
    assert report["dose"] > 0 and "dose" in out and "use --s" in err
    assert report["checkpoint"] == "checkpoints/yolov3_ckpt.pth" and 0 <= report["map50"] <= 1
    assert {"checkpoints/yolov3_ckpt.pth", "checkpoints/yolov3_ckpt.last.pth"} <= set(made(place))
    assert not any(name.endswith((".lock", ".tmp")) for name in made(place))
    assert (place / report["logdir"] / "gammas.png").stat().st_size > 10_000
    assert any("tfevents" in name for name in made(place))
    assert out.count("mAP50") == 2  # the head of the table once, the last line once

    code, err, _ = run("--epochs", "1", "-pre", "checkpoints/yolov3_ckpt.pth")
    assert code == 0, err
    assert (place / "checkpoints" / "yolov3_ckpt_finetuned.pth").exists()


@pytest.mark.parametrize("penalty", ["prox", "polarization", "group"])
def test_penalties_of_a_strength_that_suits_the_run(place, run, penalty):
    flags = ("--epochs", "4", "-sr", "--s", "auto", "--sr_penalty", penalty, "--sr_schedule", "lower-half")
    code, err, out = run(*flags, "--json", "out.json", "--checkpoint", "a.pth", "--evaluation_interval", "0")
    assert code == 0, err
    report = json.loads((place / "out.json").read_text())
    assert report["dose"] == pytest.approx(1.2, rel=0.05) and report["s"] > 0
    assert f"s {report['s']:g} x" in out and "cannot press" not in err
    gammas = torch.load(place / "a.pth", weights_only=True)["model"]["module_list.0.batch_norm_0.weight"]
    assert penalty != "prox" or (gammas == 0).any(), "a proximal step lands on zero"
    code, err, _ = run(*flags[:5], "--sr_penalty", "l1", *flags[7:], "--checkpoint", "a.pth", "--resume")
    assert code == 2 and "--sr_penalty" in err


def test_sigint_saves_and_resume_ends_where_it_would_have(place, run):
    flags = ("--epochs", "30", "--evaluation_interval", "0", "--ema", "0", "--seed", "3")
    code, err, _ = run(*flags, "--checkpoint", "whole.pth")
    assert code == 0, err
    process = start(place, *flags, "--checkpoint", "cut.pth")
    while "/30" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().count("\n") == 0 and "--resume" in err and "SIGINT" in err
    assert (place / "cut.last.pth").exists() and not (place / "cut.lock").exists()

    code, err, _ = run("--epochs", "29", *flags[2:], "--checkpoint", "cut.pth", "--resume")
    assert code == 2 and "--epochs" in err
    code, err, _ = run(*flags, "--checkpoint", "cut.pth", "--resume")
    assert code == 0, err
    a, b = (torch.load(place / name, weights_only=True)["model"] for name in ("whole.pth", "cut.pth"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_sigterm_ends_like_sigint(place, run):
    process = start(place, "--epochs", "500", "--evaluation_interval", "0")
    while "/500" not in process.stdout.readline():
        assert process.poll() is None
    code, err, _ = run("--epochs", "1")
    assert code == 2 and "another run" in err
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "SIGTERM" in err


FAULTS = [
    (["--resume"], None, "nothing to resume"),
    (["--img_size", "65"], None, "no multiple of the network's stride 8"),
    (["--accumulate", "3"], None, "do not divide"),
    (["--checkpoint", "net.cfg"], None, "is what --model_def reads"),
    (["--checkpoint", "two.names/x.pth"], None, "cannot be written"),
    (["-pre", "none.pth"], None, "no such"),
    (["--amp", "fp16"], None, "fp16 needs a GPU"),
    ([], ("two.data", "classes=2", "classes=1"), "two.names"),
    ([], ("net.cfg", "classes=2", "classes=3"), "net.cfg:"),
    ([], ("valid.txt", "images/0.jpg", "images/none.jpg"), "images/none.jpg"),
]


@pytest.mark.parametrize("flags, change, expected", FAULTS)
def test_faults_are_one_line_and_leave_nothing(place, run, flags, change, expected):
    if change:
        edit(place, *change)
    code, err, _ = run("--epochs", "2", *flags, "--json", "out.json")
    last = err.strip().split("\n")[-1]
    assert code == 2 and last.startswith("error: ") and expected in last
    assert not made(place) and not (place / "out.json").exists()


def test_finetuning_that_makes_nothing_better_keeps_what_there_was(place, run):
    code, err, _ = run("--epochs", "60", "-lr", "0.02", "--evaluation_interval", "0", "--keep", "last")
    assert code == 0, err
    flags = ("--epochs", "4", "-pre", "checkpoints/yolov3_ckpt.pth", "--json", "out.json")
    code, err, out = run(*flags, "-lr", "0.4")
    assert code == 0, err
    assert "the loss rose from" in err and "-lr 0.1" in err
    assert "kept are the weights of the start" in out
    report = json.loads((place / "out.json").read_text())
    assert report["map50"] == pytest.approx(report["start_map50"], abs=1e-6) and report["map50"] > 0.2
    assert max(row["map50"] for row in report["history"]) < report["start_map50"]
    kept = [torch.load(place / p, weights_only=True)["model"] for p in (flags[3], report["checkpoint"])]
    assert all(torch.equal(a, b) for a, b in zip(*(k.values() for k in kept), strict=True))

    code, err, out = run(*flags)
    assert code == 0 and "learning rate: 2e-05 of the cfg's 0.005" in out and "rose" not in err


def test_a_broken_label_and_a_loss_that_explodes(place, run):
    """An exploding loss names the batch and its images, and keeps nothing."""
    code, err, _ = run(
        "--epochs", "30", "-lr", "90", "--evaluation_interval", "0", "--checkpoint_interval", "0"
    )
    assert code == 2 and len(err.strip().split("\n")) == 1
    assert "epoch" in err and ".jpg" in err and "no number any more" in err
    assert not [name for name in made(place) if name.endswith((".pth", ".lock"))]
    edit(place, "labels/3.txt", "0.375", "1.375")
    code, err, _ = run("--epochs", "2", "--checkpoint", "new/net.pth")
    assert code == 2 and "labels/3.txt:1" in err and not (place / "new").exists()


def edit(place, name: str, old: str, new: str) -> None:
    path = place / name
    path.write_text(path.read_text().replace(old, new))


def test_lists_that_share_pictures_are_said(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    bench = make_bench(tmp_path, capfd)
    said = perform(capfd, "train", bench.words("train", []))[1].out
    assert "warning: 3 of 3 images of valid.txt are in train.txt as well: their mAP flatters" in said
    (tmp_path / "train.txt").write_text("images/0.png\nimages/1.png\n")
    (tmp_path / "valid.txt").write_text("images/2.png\n")
    assert "flatters" not in perform(capfd, "train", bench.words("train", []))[1].out
