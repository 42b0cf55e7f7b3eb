"""test_prune.py as a command: what it writes, what it prints, and what it refuses.

One run of each exit code is a process of its own; the others call the same `commands.run` in this one, which
saves starting torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from random_cfgs import randomise

from darkslim import commands
from darkslim.network import checkpoints, profile, weights
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.twins import twin
from darkslim.network.weights import load_model
from darkslim.pruning import surgery
from darkslim.pruning.plan import masked, plan

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride={}\npad=1\nactivation=leaky\n\n"
CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n\n"
    + CONV.format(16, 3, 2)
    + CONV.format(8, 1, 1)
    + CONV.format(16, 3, 1)
    + "[shortcut]\nfrom=-3\nactivation=linear\n\n"
    + CONV.format(24, 3, 2)
    + CONV.format(12, 3, 1)
    + "[convolutional]\nsize=1\nstride=1\nfilters=14\nactivation=linear\n\n"
    + "[yolo]\nmask=0,1\nanchors=4,5, 10,12\nclasses=2\nnum=2\n"
)


def process(root, cwd, *flags, before: str = "") -> Done:
    """The command in a folder; `before` is Python that runs first, to inject a fault."""
    script = str(root / "test_prune.py")
    program = (
        [script]
        if not before
        else [
            "-c",
            f"import sys, runpy\nsys.path.insert(0, {str(root)!r})\n{before}\n"
            f"sys.argv[0] = {script!r}\nrunpy.run_path({script!r}, run_name='__main__')",
        ]
    )
    done = subprocess.run(
        [sys.executable, *program, *map(str, flags)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(place, monkeypatch, capsys):
    """The command in this process: run(*flags) -> Done."""
    import test_prune

    monkeypatch.chdir(place)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*flags) -> Done:
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            try:
                code = commands.run(test_prune.main, test_prune.parser(), [str(f) for f in flags])
            except SystemExit as e:
                code = e.code
        return Done(code, *capsys.readouterr())

    return call


def tree(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def place(tmp_path):
    """A folder with a cfg and its weights."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "small.cfg").write_text(CFG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomise(Darknet(parse_cfg(CFG)), 0)
    checkpoints.save_checkpoint(tmp_path / "small.pth", model)
    return tmp_path


ARGS = ("--model_def", "config/small.cfg", "--model", "small.pth", "--no_eval")


def test_cut_proven_and_written(root, place):
    done = process(root, place, *ARGS, "--percent", "0.5", "--json", "report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((place / "report.json").read_text())
    for key in ("params", "macs", "map50", "latency"):
        assert f"{key}_before" in report and f"{key}_after" in report
    assert (
        report["map50_before"] is None and 0 <= report["max_abs_diff"] < 1e-5 and report["latency_after"] > 0
    )
    names = (
        "config/prune_small.cfg",
        "checkpoints/prune_yolov3_ckpt.pth",
        "checkpoints/prune_yolov3_ckpt.weights",
        "checkpoints/prune_yolov3_ckpt.png",
    )
    assert sorted(tree(place)) == sorted([*names, "config/small.cfg", "small.pth", "report.json"])
    for name in names:
        assert name in done.stdout
    assert f"python train.py --model_def {names[0]} -pre {names[1]}" in done.stdout
    model, compact = (
        load_model(place / "config/small.cfg", place / "small.pth"),
        load_model(place / names[0], place / names[2]),
    )
    assert report["params_before"] == sum(t.numel() for t in model.parameters())
    assert (
        report["params_after"]
        == sum(t.numel() for t in compact.parameters())
        == profile.count(Graph(read_cfg(place / names[0]))).params
    )
    widths = {node.index: node.shape[0] for node in compact.graph.nodes if node.type == "convolutional"}
    assert {row["layer"]: row["after"] for row in report["layers"]} == widths
    assert {row["layer"]: row["before"] for row in report["layers"]} == {
        0: 16,
        1: 8,
        2: 16,
        4: 24,
        5: 12,
        6: 14,
    }
    assert {row["layer"] for row in report["protected"]} == {0, 2, 6}
    assert "feeds [yolo] layer 7" in {row["reason"] for row in report["protected"]}
    x = torch.rand(1, 3, 32, 32)
    reference = twin(masked(model, plan(model, percent=0.5)), dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(compact(x), load_model(place / names[0], place / names[1])(x))
        assert torch.allclose(compact(x).double(), reference(x.double()), rtol=1e-4, atol=1e-4)
    with Image.open(place / names[3]) as image:
        assert image.format == "PNG" and min(image.size) > 200


def test_percent_zero_gives_the_same_outputs(run, place):
    assert run(*ARGS, "--percent", "0").returncode == 0
    before, after = (
        load_model(place / "config/small.cfg", place / "small.pth"),
        load_model(place / "config/prune_small.cfg", place / "checkpoints/prune_yolov3_ckpt.pth"),
    )
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(before(x), after(x))


def test_percent_one_leaves_the_floors_and_says_so(run, place):
    done = run(*ARGS, "--percent", "1", "--layer_keep", "0.25", "--fold", "none", "--json", "r.json")
    assert done.returncode == 0
    report = json.loads((place / "r.json").read_text())
    assert {row["layer"]: row["after"] for row in report["layers"]} == {0: 16, 1: 2, 2: 16, 4: 6, 5: 3, 6: 14}
    assert "44 channels were to be cut, 33 can be" in done.stderr


def test_with_a_data_set(run, place):
    (place / "images").mkdir()
    (place / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(place / "images" / f"{i}.png")
        (place / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.3 0.3 0.2 0.2\n")
    (place / "valid.txt").write_text("".join(f"images/{i}.png\n" for i in range(3)))
    (place / "small.data").write_text("classes=2\nvalid=valid.txt\n")
    flags = [
        *ARGS[:-1],
        "--data_config",
        "small.data",
        "--n_cpu",
        "0",
        "--percent",
        "0.3",
        "--json",
        "r.json",
    ]
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    report = json.loads((place / "r.json").read_text())
    assert 0 <= report["map50_before"] <= 1 and 0 <= report["map50_after"] <= 1 and "mAP50" in done.stdout
    (place / "small.data").write_text("classes=3\nvalid=valid.txt\n")
    before = tree(place)
    done = run(*flags)
    assert done.returncode == 2 and "classes=3" in done.stderr and tree(place) == before


def test_never_sparsified_is_said_with_the_ratio_that_is_safe(run, place):
    done = run(*ARGS, "--percent", "0.5")
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: this network looks never trained for sparsity")
    assert "is safe now" in lines[0] and "|gamma| of the 44 prunable channels" in done.stdout
    model = load_model(place / "config/small.cfg", place / "small.pth")
    for layer in (1, 4, 5):
        gamma = model.batch_norms()[layer].weight.data
        gamma[: len(gamma) * 3 // 4] *= 1e-4
    checkpoints.save_checkpoint(place / "small.pth", model)
    assert run(*ARGS, "--percent", "0.7").stderr == ""


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--percent", "-0.1"], "-0.1 is outside 0 to 1"),
        (["--percent", "1.5"], "1.5 is outside 0 to 1"),
        (["--percent", "nan"], "nan is outside 0 to 1"),
        (["--strategy", "best"], "best"),
        (["--round_to", "0"], "0 is outside"),
        (["--model", "absent.pth"], "absent.pth: no such checkpoint"),
        (["--model_def", "absent.cfg"], "absent.cfg"),
        (["--cfg_out", "config/small.cfg"], "config/small.cfg is what --model_def reads"),
        (["--cfg_out", "config/../config/small.cfg"], "is what --model_def reads"),
        (["--model_out", "small.pth"], "small.pth is what --model reads"),
        (["--model_out", "new.weights", "--cfg_out", "new.png"], "is what --cfg_out names"),
        (["--model_out", "x.onnx"], "ends in .pth"),
        (["--json", "config/small.cfg"], "is what --model_def reads"),
        (["--model_out", "small.pth/x.pth"], "is no folder"),
        (["--img_size", "33"], "33"),
    ],
)
def test_requests_that_are_refused(run, place, flags, said):
    before = tree(place)
    done = run(*ARGS, *flags)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert said in done.stderr and tree(place) == before


def test_one_line_and_exit_2_as_a_process(root, place):
    before = tree(place)
    done = process(root, place, *ARGS, "--model", "absent.pth")
    assert done.returncode == 2 and done.stderr.startswith("error: absent.pth: no such checkpoint")
    assert done.stderr.count("\n") == 1 and tree(place) == before


def test_a_link_to_an_input_is_not_written_through(run, place):
    (place / "link.pth").symlink_to("small.pth")
    before = tree(place)
    done = run(*ARGS, "--model_out", "link.pth")
    assert done.returncode == 2 and "is what --model reads" in done.stderr and tree(place) == before


def test_odd_and_absolute_paths(run, place):
    folder = place / "a folder; $(touch x) é"
    done = run(*ARGS, "--percent", "0.4", "--cfg_out", folder / "n.cfg", "--model_out", folder / "n.pth")
    assert done.returncode == 0, done.stderr
    assert (
        sorted(p.name for p in folder.iterdir()) == ["n.cfg", "n.png", "n.pth", "n.weights"]
        and not (place / "x").exists()
    )


def test_nothing_prunable_and_gammas_that_are_no_numbers(run, place):
    bare = CFG.replace("batch_normalize=1\n", "")
    (place / "config" / "bare.cfg").write_text(bare)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoints.save_checkpoint(place / "bare.pth", Darknet(parse_cfg(bare)))
    before = tree(place)
    done = run("--model_def", "config/bare.cfg", "--model", "bare.pth", "--no_eval")
    assert (
        done.returncode == 2
        and "nothing can be pruned by strategy normal" in done.stderr
        and tree(place) == before
    )
    model = load_model(place / "config/small.cfg", place / "small.pth")
    model.batch_norms()[4].weight.data[3] = float("nan")
    torch.save(checkpoints.checkpoint(model), place / "small.pth")
    before = tree(place)
    done = run(*ARGS)
    assert (
        done.returncode == 2
        and "layer 4" in done.stderr
        and "not finite" in done.stderr
        and tree(place) == before
    )


def failed(done: Done, place, before) -> None:
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("warning")]
    assert done.returncode == 3 and len(lines) == 1 and "nothing was written" in lines[0], done.stderr
    assert tree(place) == before and not (place / "checkpoints").exists()


def test_a_proof_that_fails_as_a_process(root, place):
    before = tree(place)
    fault = "from darkslim.pruning import surgery\nsurgery._set_carriers = lambda *a: None"
    failed(process(root, place, *ARGS, "--percent", "0.5", "--json", "r.json", before=fault), place, before)


@pytest.mark.parametrize("fault", ["surgery", "weights", "checkpoint"])
def test_a_proof_that_fails_exits_3_and_writes_nothing(run, place, monkeypatch, fault):
    before, real_bytes, real_save = tree(place), weights.weights_bytes, torch.save

    def wrong_save(data, path):
        key = next(k for k in data["model"] if k.endswith("running_var"))
        real_save({**data, "model": {**data["model"], key: data["model"][key] * 1.001}}, path)

    if fault == "surgery":
        monkeypatch.setattr(surgery, "_set_carriers", lambda *a: None)
    elif fault == "weights":
        monkeypatch.setattr(
            weights, "weights_bytes", lambda model, seen=0: real_bytes(model, seen)[:-4] + b"\0\0\0?"
        )
    else:
        monkeypatch.setattr(torch, "save", wrong_save)
    failed(run(*ARGS, "--percent", "0.5", "--json", "r.json"), place, before)
