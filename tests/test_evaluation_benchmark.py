"""The benchmark as a command, small: its results must be equal, and its figures name the machine's kind but
not the machine.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys


def test_benchmark(root, tmp_path):
    line = [
        sys.executable,
        str(root / "benchmarks" / "evaluate.py"),
        "--images",
        "4",
        "--candidates",
        "300",
        "--classes",
        "5",
        "--repeats",
        "1",
        "--threads",
        "1",
        "--seed",
        "3",
        "--json",
        "out.json",
    ]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    got = json.loads((tmp_path / "out.json").read_text())
    assert got["equal"] is True and got["seed"] == 3 and got["ratio"] > 0
    assert 0 < got["kept"] < 1200 and 0.1 < got["map50"] < 1
    assert (
        set(got["machine"]) == {"cpu", "cores", "threads", "gpu", "torch", "python"}
        and got["machine"]["threads"] == 1
    )
    assert platform.node() not in json.dumps(got)
