"""Faults while a command runs, by their numbers (84 to 98, 107), and a census of all numbered faults."""

from __future__ import annotations

import re
import signal
import tempfile
import time
from pathlib import Path

import forked
import pytest
import torch
from commands import check, make_bench, snapshot
from test_disk import errors, full_at, leftovers

from darkslim.base.errors import ProofError
from darkslim.data.loader import Loader
from darkslim.network.checkpoints import read_checkpoint
from darkslim.network.weights import load_model
from darkslim.pruning import verify
from darkslim.training.loss import DetectionLoss


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


def start(bench, name: str, *flags, before: str = "", workers: str = "0") -> forked.Process:
    """A command as a process; `before` is run in it first."""
    return forked.start(name, [*bench.words(name, flags), "--n_cpu", workers], bench.folder, before)


def until(process: forked.Process, text: str) -> None:
    while text not in (line := process.stdout.readline()):
        assert line or process.poll() is None, process.stderr.read()


def test_28_outputs_that_climb_out_of_the_folder(bench):
    text = (bench.folder / "two.data").read_text()
    for value in ("../elsewhere", "a/../../b", "..\\\\b"):
        (bench.folder / "two.data").write_text(text + f"backup={value}\n")
        bench.refused("train", "two.data:5", "leads out of the current folder")


def test_89_a_loader_worker_that_is_killed(bench):
    """The worker kills itself at its second picture; the command has one line within seconds."""
    before = (
        "import os, torch.utils.data\nfrom darkslim.data.dataset import ListDataset\n"
        "real = ListDataset.load\n"
        "def load(self, *a, **k):\n"
        "    if torch.utils.data.get_worker_info() is not None: os.kill(os.getpid(), 9)\n"
        "    return real(self, *a, **k)\nListDataset.load = load\n"
    )
    for name in ("train", "test"):
        process = start(bench, name, before=before, workers="1")
        began = time.time()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2 and err.count("\n") == 1 and "a worker process died" in err, err
        assert time.time() - began < 30 and not leftovers(bench.folder)


LONG = ("--epochs", "500", "--evaluation_interval", "0", "--checkpoint", "a.pth")


def test_84_a_kill_while_saving(bench):
    """At the rename of each of the files that the second epoch writes: what lies there loads."""
    before = (
        "import os\nreal, count = os.replace, [0]\n"
        "def replace(a, b):\n    count[0] += 1\n"
        "    if count[0] == {}: os.kill(os.getpid(), 9)\n    real(a, b)\nos.replace = replace\n"
    )
    assert bench.run("train", "--checkpoint", "a.pth")[0] == 0
    for number in (1, 3):
        process = start(
            bench, "train", "--checkpoint", "a.pth", "--epochs", "3", before=before.format(number)
        )
        process.communicate(timeout=60)
        assert process.returncode == -9
        read_checkpoint("a.last.pth")
        load_model("net.cfg", "a.pth")
        load_model("net.cfg", "a.weights")
    assert bench.run("train", "--checkpoint", "a.pth", "--epochs", "3")[0] == 0


def test_85_a_full_disk(bench):
    assert bench.run("train", "--checkpoint", "a.pth")[0] == 0
    before = (bench.folder / "a.pth").read_bytes()
    with full_at(3000):
        code, lines = bench.run("train", "--checkpoint", "a.pth", "--epochs", "2")
    check(code, errors(lines), "", "cannot be written")
    assert (bench.folder / "a.pth").read_bytes() == before and not leftovers(bench.folder)


@pytest.mark.parametrize("number, name", [(86, "SIGINT"), (87, "SIGTERM")], ids=("86-sigint", "87-sigterm"))
def test_a_signal_ends_it_in_order(bench, number, name):
    process = start(bench, "train", *LONG)
    until(process, "/500 ")
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=20)
    check_stopped(process, err, name)
    assert read_checkpoint("a.last.pth")["extra"]["progress"]["epoch"] >= 1 and not leftovers(bench.folder)


def check_stopped(process: forked.Process, err: str, name: str) -> None:
    assert process.returncode == 130, err
    assert err.count("\n") == 1 and name in err and "--resume" in err


SLOW = (  # an evaluation that takes a minute, in steps of a tenth of a second
    "import time\nfrom darkslim import evaluation\nfrom darkslim.evaluation import scoring\n"
    "def slow(*a, **k):\n    print('evaluating', flush=True)\n"
    "    for _ in k['progress'](range(600), desc='x'): time.sleep(.1)\n"
    "evaluation.evaluate = slow\n"
)


def test_86_a_signal_during_the_evaluation_of_the_last_epoch(bench):
    process = start(bench, "train", "--epochs", "1", "--checkpoint", "a.pth", before=SLOW)
    until(process, "evaluating")
    began = time.time()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    check_stopped(process, err, "SIGINT")
    assert time.time() - began < 5
    assert bench.run("train", "--epochs", "1", "--checkpoint", "a.pth", "--resume")[0] == 0


def test_88_a_second_ctrl_c(bench):
    """The first waits for the step; the second does not, and every file is whole."""
    slow = (
        "import time\nfrom darkslim.training import loop\nreal = loop.backward\n"
        "def backward(*a):\n    print('step', flush=True)\n"
        "    time.sleep(30)\n    return real(*a)\nloop.backward = backward\n"
    )
    assert bench.run("train", "--checkpoint", "a.pth")[0] == 0
    before = (bench.folder / "a.pth").read_bytes()
    process = start(bench, "train", *LONG, before=slow)
    until(process, "step")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in err
    assert (bench.folder / "a.pth").read_bytes() == before


@pytest.mark.parametrize("name", ("train", "test"))
def test_90_out_of_memory(bench, monkeypatch, name):
    def failing(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        yield

    monkeypatch.setattr(Loader, "__iter__", failing)
    code, lines = bench.run(name)
    check(code, errors(lines), "", "out of memory")
    assert "--batch_size" in lines[-1] and "--img_size" in lines[-1]


def test_91_a_loss_that_is_no_number(bench, monkeypatch):
    assert bench.run("train", "--checkpoint", "a.pth")[0] == 0
    before, real = (bench.folder / "a.pth").read_bytes(), DetectionLoss.__call__

    def broken(self, *a, **k):
        total, parts = real(self, *a, **k)
        return total * float("nan"), {n: v * float("nan") for n, v in parts.items()}

    monkeypatch.setattr(DetectionLoss, "__call__", broken)
    code, lines = bench.run("train", "--checkpoint", "a.pth")
    check(code, errors(lines), "epoch 1, batch 1 (images/", "no number any more")
    assert (bench.folder / "a.pth").read_bytes() == before


def test_97_one_process_dies_and_the_others_exit(bench):
    """Rank 1 ends at its third step; rank 0 has one line and ends in bounded time."""
    before = (
        "import os\nfrom darkslim.training import loop\nreal, count = loop.train_step, [0]\n"
        "def step(*a, **k):\n    count[0] += 1\n"
        "    if os.environ['RANK'] == '1' and count[0] == 3: os._exit(1)\n    return real(*a, **k)\n"
        "loop.train_step = step\n"
        f"os.environ.update(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='{free_port()}', RANK='%d', "
        "LOCAL_RANK='%d')\n"
    )
    one, two = (start(bench, "train", *LONG, before=before % (rank, rank)) for rank in (0, 1))
    began = time.time()
    _, err = one.communicate(timeout=60)
    two.communicate(timeout=60)
    assert one.returncode == 2 and "Traceback" not in err, err
    assert "another process of this run ended" in err.strip().split("\n")[-1]
    assert time.time() - began < 50 and not leftovers(bench.folder)


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_98_temporaries_lie_beside_their_files(bench, monkeypatch):
    """A rename from another file system is a copy, which can be cut off."""
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/proc")  # nothing can be made there
        codes = [
            bench.run("train", "--checkpoint", "deep/er/a.pth", "--json", "a.json")[0],
            bench.run("test_prune", "--percent", "0.3")[0],
            bench.run("test", "--figure", "a.png", "--examples", "b.png")[0],
        ]
    assert codes == [0, 0, 0]


def test_107_a_proof_that_fails(bench, monkeypatch):
    before = snapshot(bench.folder)

    def failing(*_, **__):
        raise ProofError("proof", "the compact network differs")

    monkeypatch.setattr(verify, "prove_files", failing)
    code, lines = bench.run("test_prune", "--percent", "0.3")
    assert code == 3 and errors(lines) == ["error: proof: the compact network differs"]
    assert snapshot(bench.folder) == before


NUMBERED = re.compile(r"(?:^test_|[\[_])(\d{1,3})(?=[-_\]])")


def test_every_numbered_fault_has_its_test(request):
    names = [item.nodeid.split("::", 1)[1] for item in request.session.items if "test_bad_" in item.nodeid]
    if len({item.path for item in request.session.items if "test_bad_" in item.nodeid}) < len(
        list(Path(__file__).parent.glob("test_bad_*.py"))
    ):
        pytest.skip("only some of the files are collected")
    found = {int(number) for name in names for number in NUMBERED.findall(name)}
    assert not set(range(1, 110)) - found
