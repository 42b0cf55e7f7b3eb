"""The demo's story, as short as it gets: that every command takes what the one before it wrote."""

from __future__ import annotations

import importlib
import json
import os

import forked


def test_the_demo_runs_from_pictures_to_report(root, tmp_path, monkeypatch, capfd):
    """Its commands are forked, which spares their imports."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    demo, stages = (importlib.import_module(name) for name in ("demo", "stages"))

    def call(self, name, words, more, done):
        script, *rest = words
        ran = forked.run(script.removesuffix(".py"), [*rest, *more, "--json", str(done)], root)
        assert ran.returncode == 0, ran.stderr
        print(ran.stdout)
        return 1.0

    monkeypatch.setattr(stages.Stages, "_call", call)
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
    demo.main(demo.parser().parse_args([str(word) for word in words]))
    said = capfd.readouterr().out
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
    assert "examples.png" in said and "mAP50" in said
