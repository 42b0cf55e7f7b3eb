"""The demo's story, as short as it gets: that every command takes what the one before it wrote."""

import json
import os
import subprocess
import sys


def test_the_demo_runs_from_pictures_to_report(root, tmp_path):
    work = tmp_path / "demo"
    words = [
        "--work",
        work,
        "--images",
        12,
        "--epochs",
        1,
        "--sparse_epochs",
        1,
        "--finetune_epochs",
        1,
        "--percent",
        0.3,
    ]
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks/demo.py"), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((work / "report.json").read_text())
    assert {
        "dense_map50",
        "sparse_map50",
        "pruned_map50",
        "finetuned_map50",
        "params_before",
        "params_after",
        "macs_before",
        "macs_after",
        "latency_before",
        "latency_after",
        "seconds",
        "cfg",
        "weights",
    } <= set(report)
    assert report["params_after"] < report["params_before"]
    assert os.path.exists(report["cfg"]) and os.path.exists(report["weights"])
    assert "examples.png" in done.stdout and "mAP50" in done.stdout
