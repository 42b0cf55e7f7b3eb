"""Broken and hostile weights and checkpoints through the commands: one line, exit 2, nothing created or
changed.

What can be read all the same is read, with a warning where the user should know.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
import zipfile

import pytest
import torch
from commands import TINY, make_bench, snapshot, spawn, tiny_model

from darkslim.network import checkpoints, weights

FLOATS = 20  # bytes of the header that precedes them
WHOLE = FLOATS + 4 * (4 * 6 + 6 * 27 + 7 + 42)
FIRST = "module_list.0.conv_0.weight"
OTHER = TINY.replace("filters=6", "filters=5")
# flags that make each command read the file at fault
READERS = {"test": "--weights_path", "test_prune": "--model", "train": "-pre"}


@pytest.fixture
def bench(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """A whole `.weights` file of TINY."""
    path = tmp_path_factory.mktemp("good") / "net.weights"
    weights.save_weights(tiny_model(), path)
    assert path.stat().st_size == WHOLE
    return path.read_bytes()


def floats(data: bytes, at: int, value: float) -> bytes:
    """`data` with the float at index `at` replaced."""
    return data[: FLOATS + 4 * at] + struct.pack("<f", value) + data[FLOATS + 4 * at + 4 :]


# what becomes of a good file, and words of the message; layer 0 is beta 6, gamma 6, mean 6, variance 6,
# kernels 162
BAD_WEIGHTS = {
    "31-zero-bytes": (lambda d: b"", "is 0 bytes long"),
    "32-partial-header": (lambda d: d[:11], "is 11 bytes long; a header of 16 or 20 bytes"),
    "32-partial-seen": (lambda d: d[:18], "is 18 bytes long; a header of 20 bytes"),
    "33-one-byte-short": (
        lambda d: d[:-1],
        f"is {WHOLE - 1:,} bytes long; {WHOLE:,} bytes for net.cfg; the data ends in layer 1",
    ),
    "34-one-float-short": (
        lambda d: d[:-4],
        f"is {WHOLE - 4:,} bytes long; {WHOLE:,} bytes for net.cfg; the data ends in layer 1",
    ),
    "35-cut-behind-beta": (lambda d: d[: FLOATS + 24], "the data ends in layer 0"),
    "35-cut-behind-the-header": (lambda d: d[:FLOATS], "the data ends in layer 0"),
    "36-extra-float": (lambda d: d + b"\0\0\0\0", "4 bytes are left over"),
    "36-extra-byte": (lambda d: d + b"\0", "1 bytes are left over"),
    "37-version-5000": (lambda d: struct.pack("<i", 5000) + d[4:], "opens with version 5000.2.5"),
    "37-version-negative": (lambda d: struct.pack("<i", -1) + d[4:], "opens with version -1.2.5"),
    "40-nan": (lambda d: floats(d, 24, float("nan")), "layer 0: 1 of 162 values of kernels are not finite"),
    "40-inf": (lambda d: floats(d, 186, float("inf")), "layer 1: 1 of 7 values of bias are not finite"),
    "40-negative-variance": (lambda d: floats(d, 20, -1.0), "layer 0: a running variance is -1"),
    "42-lfs": (lambda d: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "42-html": (lambda d: b"<!DOCTYPE html><html>404</html>", "an HTML or XML page"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights(name, bench, good):
    change, words = BAD_WEIGHTS[name]
    (bench.folder / "bad.weights").write_bytes(change(good))
    for command, flag in READERS.items():
        bench.refused(command, "bad.weights: ", words, flag, "bad.weights")


@pytest.mark.parametrize("filters", [5, 7])
def test_39_weights_of_another_cfg(bench, filters):
    """Both sizes and the first layer that differs: there, kernels are read where variances should stand, or
    the file ends.
    """
    text = TINY.replace("filters=6", f"filters={filters}")
    weights.save_weights(tiny_model(text), bench.folder / "bad.weights")
    found = (bench.folder / "bad.weights").stat().st_size
    for command, flag in READERS.items():
        line = bench.refused(
            command,
            "bad.weights: ",
            f"is {found:,} bytes long; {WHOLE:,} bytes for net.cfg",
            flag,
            "bad.weights",
        )
        assert "in layer 0" in line or "in layer 1" in line
        assert "the cfg that the weights were made with" in line or "belongs to another cfg" in line


def test_38_both_widths_of_seen(bench, good):
    for header in (struct.pack("<4i", 0, 1, 0, 640), struct.pack("<3iq", 0, 2, 0, 2**40)):
        (bench.folder / "net.weights").write_bytes(header + good[FLOATS:])
        assert bench.run("test") == (0, [])


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing"])
def test_41_what_is_no_file(kind, bench):
    words = {"folder": "is a folder", "fifo": "is a FIFO", "device": "is a device", "missing": "no such"}[
        kind
    ]
    path = bench.folder / "bad.weights"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    for command, flag in READERS.items():
        bench.refused(command, str(path), words, flag, path)


def test_41_a_fifo_as_a_user_meets_it(bench):
    """A process of its own, with a limit of time: opening a FIFO that nobody writes to would wait for
    ever.
    """
    os.mkfifo(bench.folder / "bad.weights")
    before = snapshot(bench.folder)
    done = spawn("test", bench.words("test", ["--weights_path", "bad.weights"]), bench.folder)
    assert done.returncode == 2 and done.stderr == "error: bad.weights: is a FIFO; a weights file\n"
    assert snapshot(bench.folder) == before


def test_36_a_sparse_file_of_100_gb_is_not_read(bench, good):
    path = bench.folder / "bad.weights"
    path.write_bytes(good)
    os.truncate(path, 100 * 2**30)
    start = time.process_time()
    bench.refused("test", "bad.weights: ", "bytes are left over", "--weights_path", "bad.weights")
    assert time.process_time() - start < 5


def test_42_a_renamed_checkpoint_is_told_by_its_content(bench):
    checkpoints.save_checkpoint(bench.folder / "net.weights", tiny_model())
    assert bench.run("test") == (0, [])


def test_43_a_backbone(bench, good):
    """Refused with the cutoff that it would load with where the whole network is needed; train.py starts from
    it.
    """
    (bench.folder / "backbone.weights").write_bytes(good[: FLOATS + 4 * 186])
    for command in ("test", "test_prune"):
        bench.refused(
            command,
            "backbone.weights: ",
            "the data ends exactly behind layer 0: a backbone file loads with cutoff=1",
            READERS[command],
            "backbone.weights",
        )
    report, lines = bench.report("train", "-pre", "backbone.weights")
    assert "holds layers 0 to 0" in report["start"] and lines == []


# ------------------------------------------------------------------------------------------------------------
# ------ .pth


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def state() -> dict:
    return dict(tiny_model().state_dict())


def rewritten(path, change) -> None:
    """A checkpoint at `path`, each record of its archive passed through change(name, content)."""
    torch.save(state(), path)
    with zipfile.ZipFile(path) as archive:
        records = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def bomb(path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)


def cut(path, keep: int) -> None:
    checkpoints.save_checkpoint(path, tiny_model())
    os.truncate(path, keep if keep >= 0 else path.stat().st_size + keep)


def lie(name: str, content: bytes) -> bytes:
    """The first storage says that it has a million values; its record has 162."""
    return content.replace(b"K\xa2t", b"J\x40\x42\x0f\x00t") if name.endswith("data.pkl") else content


# writes the file; words of the message
BAD_CHECKPOINTS = {
    "44-malicious-pickle": (lambda p: p.write_bytes(pickle.dumps(Payload())), "holds Python objects"),
    "44-malicious-archive": (lambda p: torch.save({"model": Payload()}, p), "holds Python objects"),
    "44-malicious-extra": (
        lambda p: torch.save({"model": state(), "extra": Payload()}, p),
        "holds Python objects",
    ),
    "45-empty": (lambda p: p.write_bytes(b""), "is 0 bytes long"),
    "45-only-the-magic": (lambda p: p.write_bytes(b"PK\x03\x04"), "damaged archive"),
    "45-truncated": (lambda p: cut(p, -300), "damaged archive"),
    "45-half": (lambda p: cut(p, 2000), "damaged archive"),
    "45-pickle-cut": (lambda p: p.write_bytes(pickle.dumps(list(range(99)), 2)[:40]), "bad.pth: "),
    "46-lying-sizes": (lambda p: rewritten(p, lie), "cannot be read"),
    "46-zip-bomb": (bomb, "would unpack to 10,000,000 bytes"),
    "46-one-float-spread-over-terabytes": (
        lambda p: torch.save({**state(), FIRST: torch.zeros(1).expand(10**6, 10**6)}, p),
        f"{FIRST} is (1000000, 1000000); (6, 3, 3, 3) in net.cfg",
    ),
    "48-missing": (
        lambda p: torch.save({k: v for k, v in state().items() if k != FIRST}, p),
        f"{FIRST} is missing",
    ),
    "48-extra": (
        lambda p: torch.save({**state(), "other.weight": torch.zeros(1)}, p),
        "other.weight is not in the network",
    ),
    "48-nothing": (lambda p: torch.save({}, p), "is missing (and"),
    "49-shapes": (
        lambda p: checkpoints.save_checkpoint(p, tiny_model(OTHER)),
        "a pruned network needs the pruned cfg",
    ),
    "50-shapes-of-another-cfg": (
        lambda p: checkpoints.save_checkpoint(p, tiny_model(OTHER)),
        "it was made with another cfg",
    ),
    "52-module": (
        lambda p: torch.save(torch.nn.Linear(1, 1), p),
        "save model.state_dict() instead of the whole model",
    ),
    "52-module-inside": (
        lambda p: torch.save({"model": torch.nn.Linear(1, 1)}, p),
        "save model.state_dict() instead of the whole model",
    ),
    "53-number": (lambda p: torch.save({**state(), FIRST: 3}, p), f"{FIRST} is a int; tensors only"),
    "53-list": (lambda p: torch.save([1, 2], p), "holds a list"),
    "53-key-of-no-text": (lambda p: torch.save({**state(), 7: torch.zeros(1)}, p), "the key 7 is no text"),
    "53-sparse": (
        lambda p: torch.save({**state(), FIRST: state()[FIRST].to_sparse()}, p),
        f"{FIRST} is a sparse_coo tensor",
    ),
    "53-complex": (
        lambda p: torch.save({**state(), FIRST: state()[FIRST].to(torch.complex64)}, p),
        f"{FIRST} is a complex64 tensor",
    ),
    "53-meta": (
        lambda p: torch.save({**state(), FIRST: state()[FIRST].to("meta")}, p),
        f"{FIRST} is a meta tensor",
    ),
    "40-nan": (
        lambda p: torch.save({**state(), FIRST: torch.full((6, 3, 3, 3), float("nan"))}, p),
        "layer 0: 162 of 162 values",
    ),
    "40-beyond-float32": (
        lambda p: torch.save({**state(), FIRST: torch.full((6, 3, 3, 3), 1e300, dtype=torch.float64)}, p),
        "layer 0: 162 of 162 values",
    ),
    "40-negative-variance": (
        lambda p: torch.save({**state(), "module_list.0.batch_norm_0.running_var": -torch.ones(6)}, p),
        "layer 0: a running variance is -1",
    ),
    "42-html": (lambda p: p.write_text("<html>404"), "an HTML or XML page"),
    "42-lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoints(name, bench):
    make, words = BAD_CHECKPOINTS[name]
    make(bench.folder / "bad.pth")
    for command, flag in READERS.items():
        bench.refused(command, "bad.pth: ", words, flag, "bad.pth")
    assert not list(bench.folder.rglob("payload-ran"))


def test_44_as_a_user_meets_it(bench):
    torch.save({"model": Payload()}, bench.folder / "bad.pth")
    before = snapshot(bench.folder)
    done = spawn("test_prune", bench.words("test_prune", ["--model", "bad.pth"]), bench.folder)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: bad.pth: holds Python objects")
        and done.stderr.count("\n") == 1
    )
    assert snapshot(bench.folder) == before


def test_47_the_prefix_of_a_parallel_wrapper_is_stripped_and_said(bench):
    torch.save({f"module.{key}": value for key, value in state().items()}, bench.folder / "odd.pth")
    code, lines = bench.run("test", "--weights_path", "odd.pth")
    assert code == 0 and len(lines) == 1, lines
    assert lines[0].startswith("warning: odd.pth: the prefix `module.`")


def test_50_the_same_shapes_with_other_anchors_are_told(bench):
    checkpoints.save_checkpoint(
        bench.folder / "odd.pth", tiny_model(TINY.replace("anchors=9,9", "anchors=5,5"))
    )
    code, lines = bench.run("test", "--weights_path", "odd.pth")
    assert code == 0 and len(lines) == 1, lines
    assert lines[0].startswith(
        "warning: net.cfg:21 [yolo] layer 2: the checkpoint odd.pth was made with another cfg"
    )


def test_51_tensors_of_a_gpu_load_on_a_cpu(bench):
    """The archive of a checkpoint saved from a GPU says so beside each storage."""
    here, there = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    found = []

    def move(name: str, content: bytes) -> bytes:
        found.append(here in content)
        return content.replace(here, there) if name.endswith("data.pkl") else content

    rewritten(bench.folder / "gpu.pth", move)
    assert any(found)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(bench.folder / "gpu.pth", weights_only=True)
    assert bench.run("test", "--weights_path", "gpu.pth") == (0, [])
