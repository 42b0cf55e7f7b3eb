"""Whole jobs from Python: ten lines, nothing printed, twice in a row with equal results, ended in order."""

from __future__ import annotations

import importlib
import json
import threading
from pathlib import Path

import pytest
import torch
from commands import picture, write
from test_slim_command import CFG

from darkslim.base.errors import Interrupted, RequestError
from darkslim.base.observer import Observer
from darkslim.base.signals import StopFlag
from darkslim.pipelines import (
    EvaluateSettings,
    PruneSettings,
    SlimSettings,
    TrainSettings,
    evaluate,
    prune,
    slim,
    train,
)
from darkslim.training import distributed

COMMON = {"model_def": "net.cfg", "data_config": "two.data", "n_cpu": 0, "device": "cpu"}
TRAIN = {**COMMON, "batch_size": 2, "epochs": 2, "amp": "off"}
UNLIKE = (  # what two equal jobs may differ in
    "seconds",
    "latency_before",
    "latency_after",
    "latency_spread_before",
    "latency_spread_after",
    "logdir",
)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Six training pictures and two others; the current folder. Pictures of networks and gammas are not
    drawn.
    """
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.cfg", CFG)
    for i in range(8):
        picture(tmp_path / "images" / f"{i}.png")
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    write(tmp_path / "train.txt", "".join(f"images/{i}.png\n" for i in range(6)))
    write(tmp_path / "valid.txt", "".join(f"images/{i}.png\n" for i in range(6, 8)))
    write(tmp_path / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\n")
    return tmp_path


def road(folder: str) -> tuple[dict, dict, dict]:
    """Trains, prunes and evaluates; what each job returns."""
    trained = train(TrainSettings(**TRAIN, checkpoint=f"{folder}/dense.pth", logdir=f"{folder}/logs"))
    cut = prune(
        PruneSettings(
            **COMMON,
            model=trained["checkpoint"],
            percent=0.4,
            score="taylor",
            recalibrate=2,
            batch_size=2,
            cfg_out=f"{folder}/small.cfg",
            model_out=f"{folder}/small.pth",
        )
    )
    scored = evaluate(
        EvaluateSettings(**{**COMMON, "model_def": cut["cfg"]}, weights_path=cut["weights"], batch_size=2)
    )
    return trained, cut, scored


def comparable(value, folder: str):
    """A result without what two equal jobs may differ in."""
    if isinstance(value, dict):
        return {k: comparable(v, folder) for k, v in value.items() if k not in UNLIKE}
    if isinstance(value, (list, tuple)):
        return [comparable(v, folder) for v in value]
    return str(value).replace(folder, "x")


def test_twice_in_one_process_with_equal_results_and_without_a_word(bench, capfd):
    first = road("run1")
    torch.rand(7), torch.manual_seed(123)  # what stands between two jobs must not matter
    second = road("run2")
    assert comparable(first, "run1") == comparable(second, "run2")
    for name in ("dense.pth", "small.pth"):
        a, b = (torch.load(f"{folder}/{name}", weights_only=True)["model"] for folder in ("run1", "run2"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert (bench / "run1/small.weights").read_bytes() == (bench / "run2/small.weights").read_bytes()
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""
    assert (
        first[1]["params_after"] < first[1]["params_before"] and first[2]["map50"] == first[1]["map50_after"]
    )
    assert threading.active_count() < 10, "loaders are closed"


def test_few_pictures_are_shown_more_often_where_weights_are_random(bench, monkeypatch):
    from darkslim.pipelines import train as job

    module = importlib.import_module(job.__module__)
    assert (module.EPOCHS, module.FEW) == (100, 2000)
    monkeypatch.setattr(module, "EPOCHS", 1)
    monkeypatch.setattr(module, "FEW", 7)  # steps, of three an epoch
    asked = {**TRAIN, "epochs": None, "evaluation_interval": 0}
    first = train(TrainSettings(**asked, checkpoint="a.pth", logdir="logs"))
    assert len(first["history"]) == 3 and first["steps"] == 9
    more = train(TrainSettings(**asked, checkpoint="b.pth", logdir="logs", pretrained_weights="a.pth"))
    assert len(more["history"]) == 1
    told = train(TrainSettings(**{**asked, "epochs": 2}, checkpoint="c.pth", logdir="logs"))
    assert len(told["history"]) == 2


def test_slim_from_python(bench):
    settings = SlimSettings(
        **TRAIN, recipe="depgraph", iterative_steps=1, finetune_epochs=1, target_macs=0.5, score="l1"
    )
    result = slim(settings)
    assert result["chosen"] == 1 and result["macs_after"] == pytest.approx(
        result["macs_before"] / 2, rel=0.05
    )
    assert (settings.strategy, settings.recalibrate, settings.score) == ("group", 8, "l1"), (
        "the caller has the last word"
    )
    other = SlimSettings(**TRAIN, recipe="depgraph", reconstruct=2)
    assert (other.recalibrate, other.reconstruct) == (0, 2), "one repair takes the place of another"
    assert slim(settings) == result, "it is done, and says the same"
    with pytest.raises(TypeError, match="no settings of slim: epoch"):
        SlimSettings(epoch=3)


def test_oneshot_needs_no_sparsity_training(bench):
    settings = SlimSettings(**TRAIN, recipe="oneshot", finetune_epochs=1, target_macs=0.5, work="oneshot")
    result = slim(settings)
    cut = json.loads(Path("oneshot/step1/pruned.json").read_text())
    assert len(cut["scores"]) == 5 and cut["score"] in {row["score"] for row in cut["scores"]}
    assert cut["reconstructed"] > 0 and result["sparse_map50"] is None
    held_out = set(Path("oneshot/choose.txt").read_text().split())
    assert held_out and not held_out & set(Path("oneshot/train.txt").read_text().split())
    assert result["macs_after"] == pytest.approx(result["macs_before"] / 2, rel=0.05)


def test_the_default_recipe_presses_cuts_and_solves_again(bench):
    settings = SlimSettings(**TRAIN, sparse_epochs=1, finetune_epochs=1, target_macs=0.5, work="default")
    assert (settings.recipe, settings.score, settings.teacher) == ("slimming-repaired", "repair", "dense")
    result = slim(settings)
    cut = json.loads(Path("default/step1/pruned.json").read_text())
    assert cut["score"] == "repair" and cut["reconstructed"] > 0 and cut["recalibrated"] in (None, 0)
    assert result["sparse_map50"] is not None and not Path("default/choose.txt").exists()
    assert result["macs_after"] == pytest.approx(result["macs_before"] / 2, rel=0.05)


def test_gates_close_channels_that_are_cut_without_loss(bench):
    settings = {**TRAIN, "epochs": 4, "sr": True, "sr_penalty": "gate", "s": 400.0, "strategy": "slim"}
    result = train(TrainSettings(**settings, checkpoint="gated.pth"))
    assert result["history"][-1]["gamma_quintiles"][0] == 0, "some are closed"
    kept = torch.load("gated.pth", weights_only=True)["model"]
    assert not [key for key in kept if "gate" in key], "they are in the kernels"
    cut = prune(
        PruneSettings(
            **COMMON, model="gated.pth", percent="auto", score="readers", strategy="slim", fold="none"
        )
    )
    assert cut["cut"] > 0 and cut["threshold"] == 0 and cut["map50_after"] == cut["map50_before"]
    assert cut["max_abs_diff"] < 1e-6
    assert "gates.value" in torch.load("gated.last.pth", weights_only=True)["model"]


def test_gates_in_rounds(bench):
    settings = SlimSettings(
        **{**TRAIN, "epochs": 1},
        recipe="gates",
        iterative_steps=2,
        sparse_epochs=8,
        finetune_epochs=2,
        s=400.0,
    )
    result = slim(settings)
    assert result["chosen"] == 2 and len(result["steps"]) == 2
    for row in result["steps"]:
        assert row["map50_pruned"] == row["map50_sparse"], "what is closed is no loss"
    assert result["params_after"] < result["params_before"]
    assert result["steps"][1]["params"] < result["steps"][0]["params"]


class Notes(Observer):
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def say(self, text):
        self.told.append(text.split(":")[0])

    def training_starts(self, epochs, names):
        self.told.append((epochs, names))

    def epoch_done(self, run, row):
        self.told.append(row["epoch"])

    def training_ends(self):
        self.told.append("end")


def test_an_observer_is_told(bench):
    notes = Notes()
    train(TrainSettings(**TRAIN), notes)
    at = notes.told.index((2, ("box", "obj", "cls")))
    assert notes.told[at + 1 : at + 4] == [1, 2, "end"] and {"train", "valid", "start"} <= set(
        notes.told[:at]
    )


class Stops(StopFlag):
    """Raised when a part of the data is gone through for the n-th time."""

    def __init__(self, times: int):
        super().__init__()
        self.left = times

    def watch(self, items, where, remedy=""):
        self.left -= where == "stopped while evaluating"
        if not self.left:
            self.name = "SIGINT"
        return super().watch(items, where, remedy)


@pytest.mark.parametrize("interval", [1, 5])
def test_stopped_while_evaluating_it_goes_on_to_the_same_end(bench, interval):
    """Whether the state was due before that evaluation or not."""
    more = {**TRAIN, "epochs": 3, "keep": "last", "checkpoint_interval": interval}
    train(TrainSettings(**more, checkpoint="whole.pth"))
    with pytest.raises(
        Interrupted, match="stopped while evaluating after epoch 2; saved cut.last.pth; go on with --resume"
    ):
        train(TrainSettings(**more, checkpoint="cut.pth"), stop=Stops(2))
    state = torch.load("cut.last.pth", weights_only=True)["extra"]["progress"]
    assert (state["epoch"], state["batch"], len(state["history"])) == (1, 3, 1)
    result = train(TrainSettings(**more, checkpoint="cut.pth", resume=True))
    assert [row["epoch"] for row in result["history"]] == [1, 2, 3] and all(
        "map50" in row for row in result["history"]
    )
    a, b = (torch.load(name, weights_only=True)["model"] for name in ("whole.pth", "cut.pth"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_stopped_while_the_weights_of_the_start_are_judged(bench):
    train(TrainSettings(**TRAIN, checkpoint="start.pth"))
    more = {**TRAIN, "pretrained_weights": "start.pth", "epochs": 1}
    whole = train(TrainSettings(**more, checkpoint="whole.pth"))
    with pytest.raises(Interrupted, match="stopped while evaluating before epoch 1; saved cut.last.pth; go"):
        train(TrainSettings(**more, checkpoint="cut.pth"), stop=Stops(1))
    assert not Path("cut.pth").exists()
    result = train(TrainSettings(**more, checkpoint="cut.pth", resume=True))
    assert result["start_map50"] == whole["start_map50"] and result["map50"] == whole["map50"]
    a, b = (torch.load(name, weights_only=True)["model"] for name in ("whole.pth", "cut.pth"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_finished_run_resumed_is_scored_again_and_nothing_more(bench):
    first = train(TrainSettings(**TRAIN, keep="last"))
    before = (bench / "checkpoints/yolov3_ckpt.pth").read_bytes()
    again = train(TrainSettings(**TRAIN, keep="last", resume=True))
    assert again["map50"] == first["map50"] and len(again["history"]) == 2
    assert (bench / "checkpoints/yolov3_ckpt.pth").read_bytes() == before


def test_a_stop_before_the_work_changes_nothing(bench):
    raised = StopFlag()
    raised.name = "SIGTERM"
    save = sorted(p.name for p in bench.rglob("*"))
    for job, settings in (
        (train, TrainSettings(**TRAIN)),
        (slim, SlimSettings(**TRAIN)),
        (evaluate, EvaluateSettings(**COMMON, weights_path="net.pth")),
    ):
        if job is evaluate:
            from darkslim.network.weights import load_model, save_weights

            save_weights(load_model("net.cfg"), "net.pth")
            save = sorted([*save, "net.pth"])
        with pytest.raises(Interrupted, match="SIGTERM"):
            job(settings, stop=raised)
        assert sorted(p.name for p in bench.rglob("*")) == save


def test_settings_refuse_what_flags_refuse():
    for made, words in (
        (lambda: TrainSettings(epochs=0), "--epochs: 0 is outside 1 to"),
        (lambda: TrainSettings(s=float("nan")), "--s: nan is outside 0 to"),
        (lambda: TrainSettings(pretrained_weights=""), "--pretrained_weights: is empty"),
        (lambda: PruneSettings(percent=0.5, target_macs=0.5), "leave one of them out"),
        (lambda: PruneSettings(sweep=(0.1, 2)), "--sweep: 2 is outside"),
        (lambda: EvaluateSettings(amp="maybe"), "--amp: maybe is neither on nor off"),
        (lambda: SlimSettings(recipe="nix"), "--recipe: 'nix' is none"),
    ):
        with pytest.raises(RequestError) as caught:
            made()
        assert words in str(caught.value)


def test_a_group_of_processes_ends_only_with_the_world_that_made_it(monkeypatch):
    ended = []
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: ended.append(True))
    distributed.World(0, 2).close()
    assert not ended
    distributed.World(0, 2, made=True).close()
    assert ended == [True]
