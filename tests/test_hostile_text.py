"""Lists, labels and names that look like text and are none: right, or one line, in little time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from commands import ROOT, TINY, make_bench, picture, tiny_model, write

from darkslim.base.errors import DatasetError
from darkslim.data.datafile import lines_of, read_names
from darkslim.data.labels import parse_labels
from darkslim.data.listing import read_list
from darkslim.network.weights import save_weights


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    return make_bench(tmp_path, capfd)


@pytest.mark.parametrize("line", ("/", ".", "..", "images/..", "a/.", "//", "\\"))
def test_lines_of_a_list_that_name_nothing(bench, line):
    write(bench.folder / "valid.txt", f"images/0.png\n{line}\n")
    code, lines = bench.run("test")
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: valid.txt")


@pytest.mark.parametrize(
    "row, said",
    [
        ("0 0.5 0.5 1e-320 0.5", "a box of width"),
        ("0 0.5 0.5 0.5 1e-9", "a box of height 1e-09"),
        ("0 \u0660.\u0665 0.5 0.5 0.5", "is not five numbers"),
        ("\u0661 0.5 0.5 0.5 0.5", "is not five numbers"),
        ("0 0.5 0.5 0.5 \uff10.5", "is not five numbers"),
    ],
)
def test_labels_that_only_python_would_read(bench, row, said):
    write(bench.folder / "labels/1.txt", row + "\n")
    line = bench.refused("train", "train.txt", "labels/1.txt:1")
    assert said in line


def test_numbers_of_lines_that_are_not_blank():
    assert list(lines_of("")) == [] and list(lines_of("\n \n\t\n")) == []
    assert list(lines_of("a\n\n  b \n\n\nc")) == [(1, "a"), (3, "  b "), (6, "c")]
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(rng.choice(list("a \t\n\n\n"), 40))
        expected = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        assert list(lines_of(text)) == expected


def test_millions_of_blank_lines(tmp_path):
    blank = "\n" * 15_000_000
    write(tmp_path / "list.txt", blank + "a.jpg\n/\n")
    tracemalloc.start()
    try:
        began = time.process_time()
        with pytest.raises(DatasetError, match=r"list.txt:15000002: / is no name"):
            read_list(tmp_path / "list.txt")
        assert parse_labels(blank + "0 .5 .5 .1 .1", 1).rows.shape == (1, 5)
        write(tmp_path / "a.names", "cat\ndog" + blank)
        assert read_names(tmp_path / "a.names") == ["cat", "dog"]
        assert time.process_time() - began < 4
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("locale", ("C", "POSIX", "C.UTF-8"))
def test_paths_beyond_ascii_in_any_locale(tmp_path, locale):
    folder = tmp_path / "\u624b \u00e9"
    write(folder / "net.cfg", TINY)
    save_weights(tiny_model(), folder / "n\u00e9.weights")
    for i in range(3):
        picture(folder / f"images/\u00e4{i}.png")
        write(folder / f"labels/\u00e4{i}.txt", "0 0.5 0.5 0.25 0.25\n")
    write(folder / "valid.txt", "".join(f"images/\u00e4{i}.png\n" for i in range(3)))
    write(folder / "two.names", "r\u00f6t\ngr\u00fcn\n")
    write(folder / "two.data", "classes=2\nvalid=valid.txt\nnames=two.names\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    words = [
        "--model_def",
        "net.cfg",
        "--data_config",
        "two.data",
        "--weights_path",
        "n\u00e9.weights",
        "--n_cpu",
        "0",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "test.py"), *words, "--figure", "\u00fc.png", "--json", "\u00fc.json"],
        cwd=folder,
        env={**env, "LC_ALL": locale, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "r\u00f6t" in done.stdout.decode() and (folder / "\u00fc.png").exists()
