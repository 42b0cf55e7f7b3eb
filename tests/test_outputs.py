"""No output is put over an input, down to the last picture and label, nor over another output; and Ctrl-C
while importing ends a command as it should.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT, make_bench, write

INPUTS = (
    "net.cfg",
    "net.weights",
    "two.data",
    "train.txt",
    "valid.txt",
    "two.names",
    "images/1.png",
    "labels/1.txt",
)


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    bench = make_bench(tmp_path, capfd)
    bench.always["test_prune"] = [w for w in bench.always["test_prune"] if w != "--no_eval"]
    bench.always["test_prune"] += ["--data_config", "two.data"]
    bench.always["slim"] = [
        "--model_def",
        "net.cfg",
        "--data_config",
        "two.data",
        "--work",
        "slim",
        "--epochs",
        "1",
    ]
    return bench


@pytest.mark.parametrize("path", INPUTS)
@pytest.mark.parametrize(
    "name, flag",
    [
        ("train", "--json"),
        ("train", "--checkpoint"),
        ("test", "--json"),
        ("test", "--figure"),
        ("test", "--examples"),
        ("test_prune", "--json"),
        ("test_prune", "--cfg_out"),
        ("slim", "--json"),
    ],
)
def test_over_any_input(bench, name, flag, path):
    if path == "net.weights" and name in ("train", "slim"):  # which they have to be told of
        bench.always[name] += ["-pre" if name == "train" else "--weights", "net.weights"]
    bench.refused(name, flag, "another file", flag, path)
    link = bench.folder / "link.png"
    os.link(bench.folder / path, link)  # by another name
    if flag in ("--figure", "--examples"):
        bench.refused(name, flag, "another file", flag, "link.png")


def test_lists_that_the_command_line_names(bench):
    write(bench.folder / "other.txt", "images/2.png\n")
    bench.refused("test", "--figure", "other.txt is what", "--images", "other.txt", "--figure", "other.txt")
    bench.refused("test_prune", "--json", "another file", "--choose_on", "other.txt", "--json", "other.txt")


def test_over_what_was_written_a_moment_ago(bench):
    for name, flags in (
        ("train", ["--checkpoint", "a.pth", "--json", "a.pth"]),
        ("train", ["--checkpoint", "a.pth", "--json", "a.weights"]),
        ("train", ["--checkpoint", "a.pth", "--json", "a.last.pth"]),
        ("train", ["--json", "checkpoints/yolov3_ckpt.pth"]),
        ("test_prune", ["--json", "out.png"]),
        ("test", ["--figure", "a.png", "--examples", "a.png"]),
        ("slim", ["--json", "slim/report.json"]),
    ):
        bench.refused(name, "", "", *flags)


def test_json_over_json_is_fine_and_over_anything_else_is_not(bench):
    assert bench.run("test", "--json", "a.json")[0] == bench.run("test", "--json", "a.json")[0] == 0
    write(bench.folder / "notes.txt", "what somebody wrote down")
    bench.refused("test", "--json", "holds no JSON", "--json", "notes.txt")


@pytest.mark.parametrize(
    "name, number", [("train", "SIGINT"), ("test", "SIGTERM"), ("converter", "SIGINT"), ("train", "SIGTERM")]
)
def test_a_signal_while_importing(tmp_path, name, number):
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    # in place of a library that takes long to import
    write(tmp_path / "torch.py", "print('importing', flush=True)\nimport time\ntime.sleep(30)\n")
    write(tmp_path / "numpy.py", "print('importing', flush=True)\nimport time\ntime.sleep(30)\n")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / f"{name}.py")],
        cwd=tmp_path,
        env=env,
        stdout=-1,
        stderr=-1,
        text=True,
        # tests that run in the background of a script have SIGINT ignored, and so would the process
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.05)
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err == "error: interrupted\n"
