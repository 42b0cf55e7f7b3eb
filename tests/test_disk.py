"""Disks that are full or do not keep what they were given, and names that are taken: nothing is lost, no file
of one network lies beside that of another, and every fault is one line.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import zipfile

import forked
import pytest
import torch
from commands import ROOT, check, make_bench, perform, tiny_model, write

from darkslim.base import files
from darkslim.base.errors import CheckpointError, FileError
from darkslim.network.checkpoints import read_checkpoint, save_checkpoint
from darkslim.network.weights import load_model, save_weights, weights_bytes
from darkslim.pipelines import training_log


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


@contextlib.contextmanager
def full_at(size: int):
    """No file can grow beyond `size`, as on a disk with no more room than that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def leftovers(folder) -> list[str]:
    return [str(p) for p in folder.rglob("*") if p.suffix in (".tmp", ".lock")]


def errors(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("warning: ")]


# ---------------------------------------------------------------------------------------- what is left behind


def test_training_writes_for_darknet_too_and_sets_both_aside(bench):
    assert bench.run("train", "--checkpoint", "a.pth")[0] == 0
    first = (bench.folder / "a.weights").read_bytes()
    model = load_model("net.cfg", "a.pth")
    assert weights_bytes(model) == first
    assert bench.run("train", "--checkpoint", "a.pth", "--seed", 1)[0] == 0
    assert (bench.folder / "a.1.weights").read_bytes() == first
    assert weights_bytes(load_model("net.cfg", "a.pth")) == (bench.folder / "a.weights").read_bytes() != first


def test_darknets_format_by_its_name(bench):
    report, _ = bench.report("train", "--checkpoint", "b.weights")
    assert report["checkpoint"] == "b.pth"
    head = (bench.folder / "b.weights").read_bytes()[:12]
    assert head == b"\0\0\0\0\2\0\0\0\5\0\0\0" and zipfile.is_zipfile("b.pth")
    bench.refused(
        "train",
        "--checkpoint (.weights)",
        "net.weights is what",
        "-pre",
        "net.weights",
        "--checkpoint",
        "net.pth",
    )


CUT = ["--percent", "0.5"]


def cut_files(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name.startswith("out.")}


def test_another_cut_of_the_same_name_numbers_the_earlier_one(bench):
    assert bench.run("test_prune", *CUT)[0] == 0
    first = cut_files(bench.folder)
    assert bench.run("test_prune", *CUT)[0] == 0 and cut_files(bench.folder) == first  # it says the same
    said = perform(bench.capfd, "test_prune", bench.words("test_prune", ["--percent", "0.3"]))[1].out
    assert said.count("the earlier") == 4
    now = cut_files(bench.folder)
    assert {n.replace(".1", ""): c for n, c in now.items() if ".1." in n} == first
    load_model("out.1.cfg", "out.1.weights")
    load_model("out.cfg", "out.pth")


def test_a_second_round_leaves_both_networks(bench):
    """With default names: the first pair of cfg and weights stays a pair."""
    bench.always["test_prune"] = ["--model_def", "net.cfg", "--model", "net.weights", "--no_eval", *CUT]
    assert bench.run("test_prune")[0] == 0
    first, weights = "config/prune_net.cfg", "checkpoints/prune_yolov3_ckpt.pth"
    again = ["--model_def", first, "--model", weights, "--no_eval", "--percent", "0.2"]
    bench.always["test_prune"] = again
    assert bench.run("test_prune")[0] == 0
    load_model(first, weights)
    load_model("config/prune_prune_net.cfg", "checkpoints/prune_prune_net_ckpt.weights")


@pytest.mark.parametrize("number", range(9))
def test_a_kill_at_every_rename_never_mixes_two_networks(bench, number):
    assert bench.run("test_prune", *CUT)[0] == 0
    before = (
        "import os\nreal, count = os.replace, [0]\n"
        "def replace(a, b):\n"
        "    if 'out' in str(b):\n"
        f"        if count[0] == {number}: os.kill(os.getpid(), 9)\n"
        "        count[0] += 1\n"
        "    real(a, b)\n"
        "os.replace = replace"
    )
    process = forked.start("test_prune", bench.words("test_prune", ["--percent", "0.3"]), ".", before)
    _, err = process.communicate(60)
    assert process.returncode == (-9 if number < 8 else 0), err
    for cfg, weights in (("out.cfg", "out.weights"), ("out.cfg", "out.pth"), ("out.1.cfg", "out.1.weights")):
        if os.path.exists(cfg) and os.path.exists(weights):
            load_model(cfg, weights)  # of one network
    widths = [
        load_model(c, w)
        for c, w in (("out.cfg", "out.weights"), ("out.1.cfg", "out.1.weights"))
        if os.path.exists(c) and os.path.exists(w)
    ]
    assert widths or 0 < number < 8
    assert bench.run("test_prune", "--percent", "0.3")[0] == 0  # and the same line puts it right
    load_model("out.cfg", "out.weights")


def test_an_error_between_renames_takes_everything_back(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.txt" for i in range(4)]
    for keep_old in (False, True):
        for path in paths:
            write(path, f"old {path.name}")
        real, count = os.replace, [0]

        def failing(a, b, count=count, real=real, last=6 if keep_old else 3):
            count[0] += 1
            if count[0] == last:
                raise OSError(28, "No space left on device")
            real(a, b)

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(FileError, match="No space left"):
            files.save_all([files.Save(p, "new") for p in paths], keep_old=keep_old)
        monkeypatch.setattr(os, "replace", real)
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {p.name: f"old {p.name}" for p in paths}


def test_two_cuts_at_one_place(bench):
    from darkslim.base.locks import locked

    script = "from darkslim.base.locks import locked\nwith locked('out.lock'): print(1, flush=True); input()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline()
    bench.refused("test_prune", "out.lock", "another run", *CUT)
    other.communicate("\n")
    assert bench.run("test_prune", *CUT)[0] == 0 and not leftovers(bench.folder)
    with locked(bench.folder / "out.lock"):
        pass


# ------------------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize("size", (1000, 2500, 4000, 8000))
def test_a_full_disk_while_training(bench, size):
    assert bench.run("train", "--checkpoint", "a.pth")[0] == 0
    before = {n: (bench.folder / n).read_bytes() for n in ("a.pth", "a.weights", "a.last.pth")}
    with full_at(size):
        code, lines = bench.run("train", "--checkpoint", "a.pth", "--epochs", 2, "--seed", 1)
    check(code, errors(lines), "", "cannot be written")
    assert not leftovers(bench.folder)
    kept = {n: p.read_bytes() for n, p in ((n, bench.folder / n) for n in before)}
    numbered = {
        n: p.read_bytes() for n in before if (p := bench.folder / n.replace("a.", "a.1.", 1)).exists()
    }
    assert kept == before or numbered == before


@pytest.mark.parametrize("size", (1000, 2500, 4000))
def test_a_full_disk_while_cutting(bench, size):
    assert bench.run("test_prune", *CUT)[0] == 0
    before = cut_files(bench.folder)
    with full_at(size):
        code, lines = bench.run("test_prune", "--percent", "0.3")
    check(code, errors(lines), "out.", "cannot be written")
    assert cut_files(bench.folder) == before and not leftovers(bench.folder)


def test_a_full_log_disk_costs_the_pictures_only(bench, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_log.Board, "scalars", full)
    monkeypatch.setattr(training_log.GammaTrace, "draw", full)
    code, lines = bench.run("train", "--checkpoint", "a.pth", "--epochs", 2)
    assert code == 0 and len(lines) == 1
    assert "logs and pictures are given up (No space left on device); the training goes on" in lines[0]
    assert read_checkpoint("a.last.pth")["extra"]["progress"]["epoch"] == 2
    assert not leftovers(bench.folder)


@pytest.mark.parametrize("name", ("test", "test_prune", "train"))
def test_out_of_memory_and_dead_workers(bench, monkeypatch, name):
    from darkslim.data.loader import Loader

    bench.always["test_prune"] = [w for w in bench.always["test_prune"] if w != "--no_eval"]
    bench.always["test_prune"] += ["--data_config", "two.data"]
    for error, said, advice in (
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory", "--batch_size"),
        (MemoryError(), "out of memory", "--img_size"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "loads images died",
            "--n_cpu",
        ),
    ):

        def failing(self, error=error):
            raise error
            yield

        monkeypatch.setattr(Loader, "__iter__", failing)
        code, lines = bench.run(name)
        check(code, errors(lines), "training" if name == "train" else "work", said)
        assert advice in lines[-1]


def test_more_micro_batches_go_on_with_resume(bench):
    """What the error about memory advises works."""
    assert bench.run("train", "--checkpoint", "a.pth", "--epochs", 2)[0] == 0
    assert bench.run("train", "--checkpoint", "a.pth", "--epochs", 2, "--resume", "--accumulate", 2)[0] == 0


# --------------------------------------------------------------------------------------------- damaged files


def test_a_flipped_bit_is_found_everywhere(bench):
    save_checkpoint("net.pth", tiny_model())
    whole = (bench.folder / "net.pth").read_bytes()
    with zipfile.ZipFile("net.pth") as archive:
        place = max(archive.infolist(), key=lambda item: item.file_size).header_offset + 200
    assert bench.run("train", "--checkpoint", "a.pth", "--epochs", 2)[0] == 0
    state = (bench.folder / "a.last.pth").read_bytes()
    write(bench.folder / "net.pth", whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
    for name, flag in (("test", "--weights_path"), ("test_prune", "--model"), ("train", "-pre")):
        bench.refused(name, "net.pth", "is damaged: the checksum of", flag, "net.pth")
    with zipfile.ZipFile("a.last.pth") as archive:
        items = [i for i in archive.infolist() if "/data/" in i.filename]
        place = max(items, key=lambda item: item.file_size).header_offset + 150
    write(bench.folder / "a.last.pth", state[:place] + bytes([state[place] ^ 1]) + state[place + 1 :])
    flags = ["--checkpoint", "a.pth", "--epochs", 2, "--resume"]
    bench.refused("train", "a.last.pth", "is damaged: the checksum of", *flags)


ODD = {
    "no optimizer": lambda e: e.pop("optimizer"),
    "odd optimizer": lambda e: e.update(optimizer=3),
    "no progress": lambda e: e.pop("progress"),
    "odd progress": lambda e: e.update(progress=[1]),
    "progress of text": lambda e: e["progress"].update(epoch="many"),
    "no rng": lambda e: e.pop("rng"),
    "short rng": lambda e: e.update(rng=torch.zeros(3, dtype=torch.uint8)),
    "odd identity": lambda e: e.update(identity=[1, 2]),
    "long identity": lambda e: e["identity"].update({"--epochs": "x" * 1_000_000}),
    "nested identity": lambda e: e["identity"].update({"--epochs": nested(300)}),
    "no average": lambda e: e.update(ema=None),
    "history": lambda e: e["progress"].update(history=7),
}


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value, value]  # as printed, two to the power of depth
    return value


@pytest.mark.parametrize("name", ODD)
def test_states_with_missing_or_odd_parts(bench, name):
    assert bench.run("train", "--checkpoint", "a.pth", "--epochs", 2)[0] == 0
    data = torch.load("a.last.pth", weights_only=True)
    ODD[name](data["extra"])
    torch.save(data, "a.last.pth")
    flags = ["--checkpoint", "a.pth", "--epochs", 2, "--resume"]
    bench.refused("train", "a.last.pth", "", *flags, limit=400)


def test_keys_are_bounded_in_messages(tmp_path):
    for state in ({"k" * 1_000_000: 3}, {("t",) * 100_000: torch.zeros(1)}):
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(tmp_path / "a.pth")
        assert len(str(caught.value)) < 400


def test_a_negative_variance_that_is_zero(bench):
    """A published detector holds -7e-44, less than the smallest normal number."""
    model = tiny_model()
    next(iter(model.batch_norms().values())).running_var[0] = -7e-44
    save_weights(model, "net.weights")
    assert bench.run("test")[0] == 0
    again = load_model("net.cfg", "net.weights")
    assert next(iter(again.batch_norms().values())).running_var[0] == 0
    torch.save({"model": model.state_dict()}, "net.pth")
    assert bench.run("test", "--weights_path", "net.pth")[0] == 0
    next(iter(model.batch_norms().values())).running_var[0] = -1e-30
    save_weights(model, "net.weights")
    bench.refused("test", "net.weights", "a running variance is -1e-30")
