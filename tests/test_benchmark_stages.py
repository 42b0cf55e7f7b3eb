"""The stages of the benchmarks: what was run just so is not run again; anything else is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from commands import ROOT, write

from darkslim.base.errors import DarkslimError, FileError


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """benchmarks/stages.py, whose commands are written down instead of run."""
    spec = importlib.util.spec_from_file_location("benchmark_stages", ROOT / "benchmarks/stages.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    ran, codes = [], []

    def run(line, cwd):
        ran.append(line[1:])
        code = codes.pop() if codes else 0
        if not code:
            write(tmp_path / line[line.index("--json") + 1], json.dumps({"number": len(ran)}))
        return type("Done", (), {"returncode": code})

    module.git = module.source
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(**vars(subprocess) | {"run": run}))
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "source", lambda: "one")
    module.ran, module.codes = ran, codes
    return module


@pytest.mark.parametrize("command, out", [("train.py", "--checkpoint"), ("compress.py", "--out")])
def test_a_stage_is_run_again_for_other_words_or_files_only(benchmark, tmp_path, capsys, command, out):
    words = (command, "--model_def", "a.cfg", "--epochs", 2, out, "out.pth")
    write(tmp_path / "a.cfg", "one")

    def once() -> int:
        return benchmark.Stages(tmp_path / "work", 0).run("dense", *words)["number"]

    assert once() == once() == 1 and len(benchmark.ran) == 1
    write(tmp_path / "out.pth", "what the stage itself wrote")
    assert once() == 1
    write(tmp_path / "a.cfg", "two")
    assert once() == 2 and "another a.cfg" in capsys.readouterr().out
    words = (*words[:4], 3, *words[5:])
    assert once() == once() == 3 and "other words (2)" in capsys.readouterr().out
    assert benchmark.Stages(tmp_path / "work", 1).run("dense", *words)["number"] == 4  # another seed


@pytest.mark.parametrize("command", [("train.py",), ("compress.py", "surgery")])
def test_a_training_goes_on_only_where_it_was_the_same(benchmark, tmp_path, command):
    stages = benchmark.Stages(tmp_path / "work", 0)
    benchmark.codes.append(137)
    with pytest.raises(DarkslimError, match="exited 137"):
        stages.run("dense", *command, "--epochs", 2)
    write(tmp_path / "work/dense.last.pth", "state")
    benchmark.codes.append(137)
    with pytest.raises(DarkslimError):
        stages.run("dense", *command, "--epochs", 3)
    assert "--resume" not in benchmark.ran[-1]  # of other words
    stages.run("dense", *command, "--epochs", 3)
    assert "--resume" in benchmark.ran[-1]


def test_a_stage_tells_of_the_commit_that_ran_it(benchmark, tmp_path, monkeypatch):
    stages = benchmark.Stages(tmp_path / "work", 0)
    stages.run("dense", "test.py")
    monkeypatch.setattr(benchmark, "source", lambda: "two+")
    again = benchmark.Stages(tmp_path / "work", 0)
    again.run("dense", "test.py")
    again.run("cut", "test_prune.py")
    assert stages.sources == {"dense": "one"} and again.sources == {"dense": "one", "cut": "two+"}
    note = tmp_path / "work/dense.stage.json"
    write(note, json.dumps({"asked": json.loads(note.read_text())["asked"]}))  # of before it was kept
    again.run("dense", "test.py")
    assert again.sources["dense"] is None


def test_the_source_is_the_commit_and_whether_its_code_was_changed(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "subprocess", subprocess)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert benchmark.git() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    write(tmp_path / "a.py", "1")
    write(tmp_path / "README.md", "1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = benchmark.git()
    assert len(clean) == 12 and int(clean, 16)
    write(tmp_path / "README.md", "2")
    write(tmp_path / "new.txt", "2")
    assert benchmark.git() == clean
    write(tmp_path / "a.py", "2")
    assert benchmark.git() == clean + "+"


def test_seeds_of_another_machine_are_told_beside_those_of_this_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    accuracy = importlib.import_module("accuracy")
    settings = dict.fromkeys(accuracy.SETTINGS, 1)

    def told(seeds: list[int], cpu: str, **more) -> dict:
        rows = [{"seed": seed, "stage": "dense", "map50": seed / 10} for seed in seeds]
        each = {str(seed): {"dense": cpu} for seed in seeds}
        told = {"rows": rows, "seconds": each, "sources": each, "commands": {cpu: "python ..."}}
        return {**settings, **told, "seeds": seeds, **more}

    path = tmp_path / "other.json"
    path.write_text(json.dumps(told([0, 1], "old", run={"machine": {"cpu": "old"}})))
    mine = told([1, 2], "new", machines={"1": {"cpu": "new"}, "2": {"cpu": "new"}})
    found = accuracy.joined(mine, str(path))
    assert found["seeds"] == [0, 1, 2] and [row["seed"] for row in found["rows"]] == [0, 1, 2]
    assert {seed: one["cpu"] for seed, one in found["machines"].items()} == {
        "0": "old",
        "1": "new",
        "2": "new",
    }
    assert found["sources"]["1"] == {"dense": "new"} and found["seconds"]["0"] == {"dense": "old"}
    assert list(found["commands"]) == ["old", "new"]
    (row,) = accuracy.summary(found["rows"])
    assert (
        row["seeds"] == 3 and row["map50"] == pytest.approx(0.1) and row["map50_spread"] == pytest.approx(0.1)
    )
    with pytest.raises(FileError, match="another epochs"):
        accuracy.joined(mine | {"epochs": 2}, str(path))
    path.write_text("[]")
    with pytest.raises(FileError, match="cannot be read as a JSON of this command"):
        accuracy.joined(mine, str(path))
