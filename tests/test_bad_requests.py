"""Requests that cannot be met: devices, folders, runs that are in each other's way, and cuts that cannot be
made.

Exit 2, one line, nothing on disk created or changed; what can be met although it is odd is met, with a word
about it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from commands import TINY, Bench, make_bench, snapshot, tiny_model, write

from darkslim.network import checkpoints, weights

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride={}\npad=1\nactivation=leaky\n\n"
# layers 0 and 2 add up; only layer 1 is of one producer
RESIDUAL = (
    TINY.split("[conv")[0]
    + CONV.format(8, 3, 4)
    + CONV.format(6, 1, 1)
    + CONV.format(8, 3, 1)
    + "[shortcut]\nfrom=-3\nactivation=linear\n\n[convolutional]\nfilters=7\nsize=1\nstride=1\n"
    "activation=linear\n\n" + "[yolo]" + TINY.split("[yolo]")[1]
)


@pytest.fixture
def bench(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


def locked(folder, monkeypatch) -> None:
    """Makes a folder that denies writing, to the superuser too."""
    folder.mkdir(exist_ok=True)
    real_open, real_access, place = os.open, os.access, os.path.realpath(folder)

    def deny(path, flags, *rest, **named):
        if flags & os.O_CREAT and os.path.realpath(path).startswith(place):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", deny)
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode, **named: (
            not (mode & os.W_OK and os.path.realpath(path).startswith(place))
            and real_access(path, mode, **named)
        ),
    )
    with pytest.raises(PermissionError):
        tempfile.mkstemp(dir=folder)


# ------------------------------------------------------------------------------------------------------------
# --- running


@pytest.mark.parametrize("command", ["train", "test", "test_prune"])
def test_92_a_gpu_that_is_not_there(command, bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda:1"):
        bench.refused(
            command,
            "--device: ",
            f"{name} was asked for, but no GPU can be used here; use --device cpu",
            "--device",
            name,
        )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    bench.refused(
        command,
        "--device: ",
        "cuda:2 was asked for, but there are 2 GPUs; cuda:0 to cuda:1",
        "--device",
        "cuda:2",
    )
    bench.refused(command, "--device: ", "auto, cpu, cuda or cuda:N", "--device", "gpu")


# command, the flag, the file in the folder, what the line opens with
WRITES = [
    ("train", "--checkpoint", "ro/ckpt.pth", "ro/ckpt.pth"),
    ("train", "--json", "ro/out.json", "ro/out.json"),
    ("train", "--logdir", "ro/logs", "ro/logs"),
    ("test", "--json", "ro/out.json", "ro/out.json"),
    ("test", "--figure", "ro/curve.png", "ro/curve.png"),
    ("test_prune", "--cfg_out", "ro/out.cfg", "ro/out.cfg"),
    ("test_prune", "--model_out", "ro/deep/out.pth", "ro/deep/out.pth"),
    ("test_prune", "--json", "ro/out.json", "ro/out.json"),
]


@pytest.mark.parametrize("command, flag, path, where", WRITES, ids=lambda v: str(v).replace("/", "-"))
def test_93_a_read_only_folder_is_refused_before_the_work(command, flag, path, where, bench, monkeypatch):
    locked(bench.folder / "ro", monkeypatch)
    bench.refused(command, where, "cannot be written", flag, path)


@pytest.mark.parametrize("command, flag", sorted({row[:2] for row in WRITES}))
def test_93_what_an_output_cannot_be(command, flag, bench):
    """A name below a file, and a device, which saving would turn into a plain file."""
    os.mkfifo(bench.folder / "fifo.pth")
    bench.refused(command, "", "cannot be written", flag, "two.names/x.pth")
    if flag != "--logdir":
        bench.refused(command, "fifo.pth", "is a FIFO", flag, "fifo.pth")


@pytest.mark.parametrize(
    "command, flag, path",
    [
        ("train", "--json", "net.cfg"),
        ("train", "--json", "two.data"),
        ("train", "--checkpoint", "two.data"),
        ("train", "--checkpoint", "train.txt"),
        ("train", "--checkpoint", "two.names"),
        ("test", "--figure", "net.cfg"),
        ("test_prune", "--json", "net.weights"),
    ],
)
def test_an_output_that_is_an_input(command, flag, path, bench):
    bench.refused(command, f"{flag}: {path} is ", "another file", flag, path)


def test_94_two_runs_at_one_place(bench):
    """The lock is held by another process; the line says by which."""
    (bench.folder / "checkpoints").mkdir()
    path = bench.folder / "checkpoints" / "yolov3_ckpt.lock"
    code = (
        f"import fcntl\nf = open({str(path)!r}, 'w')\nfcntl.lockf(f, "
        "fcntl.LOCK_EX)\nf.write('4711\\n')\nf.flush()\n"
        "print()\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        bench.refused(
            "train",
            "checkpoints/yolov3_ckpt.lock: another run (process 4711) is writing these files",
            "another --checkpoint",
        )
        assert bench.run("train", "--checkpoint", "else/where.pth") == (0, [])
        other.communicate(b"\n")
    assert bench.run("train") == (0, []), "a lock file that nobody holds is none"


@pytest.fixture(scope="module")
def run_files(tmp_path_factory) -> list:
    """Made by the first test that wants them: what a run of one epoch leaves."""
    return [tmp_path_factory.mktemp("run"), False]


@pytest.fixture
def resumable(bench, run_files) -> Bench:
    folder, made = run_files
    target = bench.folder / "checkpoints"
    if not made:
        assert bench.run("train", "--seed", "3") == (0, [])
        for path in target.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        run_files[1] = True
    else:
        target.mkdir()
        for path in folder.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    return bench


# what changes, what the line says of it
OTHERS = {
    "95-anchors": (lambda f: write(f / "net.cfg", TINY.replace("9,9", "8,8")), "was made with cfg hash", ()),
    "95-shapes": (
        lambda f: write(f / "net.cfg", TINY.replace("filters=6", "filters=5")),
        "was made with cfg hash",
        (),
    ),
    "95-labels": (
        lambda f: write(f / "labels" / "0.txt", "1 0.5 0.5 0.2 0.2\n"),
        "was made with the data of train",
        (),
    ),
    "95-list": (lambda f: write(f / "valid.txt", "images/0.png\n"), "was made with the data of valid", ()),
    "95-seed": (lambda f: None, "was made with --seed 3, and this run has 4", ("--seed", "4")),
    "95-size": (
        lambda f: None,
        "was made with img_size [32, 32], and this run has [64, 64]",
        ("--img_size", "64"),
    ),
    "95-nothing-there": (lambda f: None, "there is nothing to resume", ("--checkpoint", "other/ckpt.pth")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_95_resume_of_another_run(name, resumable):
    change, words, flags = OTHERS[name]
    change(resumable.folder)
    resumable.refused(
        "train", "", words, "--resume", *(flags if "--seed" in flags else ("--seed", "3", *flags))
    )


def test_95_resume_from_a_file_that_is_no_state(resumable):
    checkpoints.save_checkpoint(resumable.folder / "checkpoints" / "yolov3_ckpt.last.pth", tiny_model())
    resumable.refused(
        "train", "checkpoints/yolov3_ckpt.last.pth: holds no training state", "", "--resume", "--seed", "3"
    )
    write(resumable.folder / "checkpoints" / "yolov3_ckpt.last.pth", b"PK\x03\x04")
    resumable.refused(
        "train", "checkpoints/yolov3_ckpt.last.pth: is a damaged archive", "", "--resume", "--seed", "3"
    )


def test_96_leftover_temporaries_are_ignored(resumable):
    """Of a kill while saving, beside the checkpoint and among the weights to start from."""
    left = [
        "checkpoints/.yolov3_ckpt.pth.ab12.tmp",
        "checkpoints/.yolov3_ckpt.last.pth.cd34.tmp",
        "weights/.net.weights.ef56.tmp",
    ]
    for name in left:
        write(resumable.folder / name, (resumable.folder / "net.weights").read_bytes())
    assert resumable.run("train", "--resume", "--seed", "3") == (0, []), (
        "the run was over: nothing more to do"
    )
    report, lines = resumable.report("train")
    assert report["start"] == "random weights" and lines == []
    assert all((resumable.folder / name).is_file() for name in left)


@pytest.mark.parametrize(
    "keys, line, words",
    [
        ("steps=80,90\nscales=.1\n", 6, "1 scales for 2 steps"),
        ("steps=80\nscales=.1,.1\n", 6, "2 scales for 1 steps"),
        ("steps=80,90\n", 5, "0 scales for 2 steps"),
        ("scales=.1\n", 5, "1 scales for 0 steps"),
    ],
)
def test_steps_without_their_scales(keys, line, words, bench):
    write(bench.folder / "net.cfg", TINY.replace("channels=3\n", "channels=3\n" + keys))
    bench.refused(
        "train",
        f"net.cfg:{line} [net]: {words}; one scale a step",
        "--schedule cosine",
        "--schedule",
        "steps",
    )


def test_steps_are_not_asked_for_by_another_schedule(bench):
    write(bench.folder / "net.cfg", TINY.replace("channels=3\n", "channels=3\nsteps=80,90\nscales=.1\n"))
    assert bench.run("train") == (0, [])


# ------------------------------------------------------------------------------------------------------------
# --- pruning


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--percent", "-0.01"),
        ("--percent", "1.01"),
        ("--percent", "nan"),
        ("--percent", "inf"),
        ("--percent", "half"),
        ("--percent", ""),
        ("--layer_keep", "-1"),
        ("--layer_keep", "2"),
        ("--layer_keep", "nan"),
        ("--round_to", "0"),
        ("--round_to", "1.5"),
    ],
    ids=lambda v: v,
)
def test_99_shares_that_are_none(flag, value, bench):
    bench.refused("test_prune", f"argument {flag}: ", value, f"{flag}={value}")


def prune(bench: Bench, *flags) -> tuple[dict, list[str]]:
    report, lines = bench.report("test_prune", *flags)
    return report, [line for line in lines if "never trained for sparsity" not in line]


def test_100_percent_0_leaves_all(bench):
    report, lines = prune(bench, "--percent", "0")
    assert report["cut"] == 0 and report["params_before"] == report["params_after"] and lines == []
    before = weights.load_model("net.cfg", "net.weights")
    for name in ("out.pth", "out.weights"):
        after, x = weights.load_model("out.cfg", name), torch.rand(2, 3, 32, 32)
        with torch.inference_mode():
            assert torch.equal(before(x), after(x))


@pytest.mark.parametrize("keep, left", [("0", 1), ("0.01", 1), ("0.5", 3), ("1", 6)])
def test_101_and_102_the_floor_holds_where_all_is_to_go(keep, left, bench):
    report, lines = prune(bench, "--percent", "1", "--layer_keep", keep, "--fold", "none")
    assert {row["layer"]: row["after"] for row in report["layers"]} == {0: left, 1: 7}
    assert len(lines) == 1 and lines[0].startswith(
        f"warning: 6 channels were to be cut, {6 - left} can be: the floor of --layer_keep"
    )


@pytest.mark.parametrize("value", [0.5, 0.0])
def test_103_ties_are_cut_the_same_way_each_time(value, bench):
    """All gammas are equal; channels go by layer and number, and two runs write the same bytes."""
    model = tiny_model()
    model.batch_norms()[0].weight.data.fill_(value)
    weights.save_weights(model, bench.folder / "net.weights")
    files = []
    for _ in range(2):
        report, _ = prune(bench, "--percent", "0.5", "--fold", "none")
        assert report["cut"] == 3 and report["layers"][0]["after"] == 3
        files.append([(bench.folder / name).read_bytes() for name in ("out.cfg", "out.weights")])
    assert files[0] == files[1]
    kept = weights.load_model("out.cfg", "out.weights").convolutions()[0].weight
    assert torch.equal(kept, model.convolutions()[0].weight[3:])


def test_104_nothing_prunable(bench):
    write(bench.folder / "net.cfg", text := TINY.replace("batch_normalize=1\n", ""))
    weights.save_weights(tiny_model(text), bench.folder / "net.weights")
    bench.refused("test_prune", "", "nothing can be pruned by strategy normal")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_105_gammas_that_are_no_numbers(value, bench):
    data = bytearray((bench.folder / "net.weights").read_bytes())
    data[20 + 4 * 8 : 20 + 4 * 9] = np.float32(value).tobytes()  # behind six betas, the third gamma
    write(bench.folder / "net.weights", bytes(data))
    bench.refused(
        "test_prune",
        "net.weights: layer 0: 1 of 6 values of gamma are not finite",
        "from before the training diverged",
    )


def test_106_members_of_a_shortcut_that_disagree(bench):
    """One says that channels 0 to 3 are superfluous, the other 4 to 7: strategy normal leaves both, and says
    why.
    """
    write(bench.folder / "net.cfg", RESIDUAL)
    model = tiny_model(RESIDUAL)
    for layer, weak in ((0, slice(0, 4)), (2, slice(4, 8))):
        model.batch_norms()[layer].weight.data.fill_(1)
        model.batch_norms()[layer].weight.data[weak] = 0
    weights.save_weights(model, bench.folder / "net.weights")
    report, lines = prune(bench, "--percent", "0.5")
    assert {row["layer"]: row["after"] - row["carriers"] for row in report["layers"]} == {
        0: 8,
        1: 3,
        2: 8,
        4: 7,
    } and lines == []
    reasons = {row["layer"]: row["reason"] for row in report["protected"]}
    assert "0" in reasons[2] and "2" in reasons[0]
    assert report["max_abs_diff"] < 1e-4


def test_108_odd_and_absolute_paths(bench):
    (bench.folder / "link.cfg").symlink_to("net.cfg")
    for flag, path in (
        ("--cfg_out", str(bench.folder / "net.cfg")),
        ("--cfg_out", "./x/../net.cfg"),
        ("--cfg_out", "link.cfg"),
        ("--model_out", str(bench.folder / "net.weights")),
    ):
        if path.startswith("./x"):
            (bench.folder / "x").mkdir()
        bench.refused(
            "test_prune",
            f"{flag}{' (.weights)' if 'weights' in path else ''}: ",
            "inputs are never overwritten",
            flag,
            path,
        )
    os.link(bench.folder / "net.cfg", bench.folder / "hard.cfg")
    bench.refused("test_prune", "--cfg_out: hard.cfg is what --model_def reads", "", "--cfg_out", "hard.cfg")
    odd = bench.folder / "-a folder; \u624b" / "out.cfg"
    assert bench.run("test_prune", f"--cfg_out={odd}")[0] == 0 and odd.is_file()


def test_109_what_was_never_sparsified_is_told_with_what_is_safe(bench):
    before = snapshot(bench.folder)
    report, lines = bench.report("test_prune", "--percent", "0.5")
    assert len(lines) == 1 and lines[0].startswith(
        "warning: this network looks never trained for sparsity: only 0%"
    )
    assert "the median is" in lines[0] and "--percent 0 is safe now" in lines[0]
    assert json.loads((bench.folder / "report.json").read_text())["near_zero"] == 0 == report["near_zero"]
    after = snapshot(bench.folder)
    assert {name: after[name] for name in before} == before and sorted(set(after) - set(before)) == [
        "out.cfg",
        "out.png",
        "out.pth",
        "out.weights",
        "report.json",
    ]
