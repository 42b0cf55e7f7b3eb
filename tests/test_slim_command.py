"""slim.py as a user types it: what it writes, going on after kills and signals, what chooses, what it
refuses.

The network is a few layers at 32 x 32 pixels and the pictures are noise: nothing is learned here, but every
stage is real.
"""

from __future__ import annotations

import functools
import json
import random
import signal
import time

import forked
import numpy as np
import pytest
import torch
from commands import ROOT, check, perform, picture, snapshot, write

from darkslim.network.weights import load_model, save_weights

CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\nlearning_rate=0.001\nburn_in=0\n\n"
    + "".join(
        f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride={stride}\npad=1\n"
        "activation=leaky\n\n"
        for filters, stride in ((8, 2), (16, 2), (16, 1))
    )
    + "[convolutional]\nfilters=7\nsize=1\nstride=1\npad=1\nactivation=linear\n\n"
    "[yolo]\nmask=0\nanchors=9,9\nnum=1\nclasses=2\n"
)
ALWAYS = (
    "--model_def net.cfg --data_config two.data --batch_size 2 --n_cpu 0 --amp off --device cpu --recipe two"
).split()
RECIPE = (
    "[slim]\niterative_steps = 2\nscore = l1\nsparse_epochs = 2\nfinetune_epochs = 2\nrecalibrate = 1\n"
    "epochs = 1\n"
)
FILES = ("slim.weights", "slim_net.cfg", "step1/pruned.weights", "step2/tuned.weights")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Ten training pictures and three others, a cfg and a recipe of two steps; the current folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.cfg", CFG)
    for i in range(13):
        picture(tmp_path / "images" / f"{i}.png")
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    write(tmp_path / "train.txt", "".join(f"images/{i}.png\n" for i in range(10)))
    write(tmp_path / "valid.txt", "".join(f"images/{i}.png\n" for i in range(10, 13)))
    write(tmp_path / "two.names", "red\ngreen\n")
    write(tmp_path / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=two.names\n")
    write(tmp_path / "config/recipes/two.ini", RECIPE)
    return tmp_path


@pytest.fixture
def run(bench, capfd, monkeypatch):
    """(exit code, lines on stderr, text on stdout) of slim.py in this process, without the pictures that
    stages draw.
    """

    def go(*flags):
        code, said = perform(capfd, "slim", [*ALWAYS, *flags])
        return code, [line for line in said.err.splitlines() if not line.startswith("warning")], said.out

    return go


@pytest.fixture
def refused(run, bench, capfd):
    """A run that must end with exit 2, one line, and nothing changed on the disk."""

    def go(where, words, *flags):
        before = snapshot(bench)
        code, said = perform(capfd, "slim", [*ALWAYS, *flags])
        check(code, said.err.splitlines(), where, words, 700)
        assert snapshot(bench) == before

    return go


def report(folder) -> dict:
    return json.loads((folder / "report.json").read_text())


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


# ------------------------------------------------------------------------------------------------ what it
# writes


@pytest.mark.draws
def test_two_steps_from_random_weights(run, bench):
    code, lines, out = run("--target-macs", "0.4", "--json", "out.json")
    assert (code, lines) == (0, [])
    found, work = json.loads((bench / "out.json").read_text()), bench / "runs/slim"
    assert found.pop("run")["command"] == "slim.py" and found == report(work)
    assert {
        "dense_map50",
        "final_map50",
        "params_before",
        "params_after",
        "macs_before",
        "macs_after",
        "chosen",
        "cfg",
        "weights",
        "seconds",
    } <= set(found)
    keys = {"percent", "params", "macs", "map50_pruned", "map50_recovered", "seconds", "cfg", "weights"}
    assert [keys <= set(step) for step in found["steps"]] == [True, True] and found["chosen"] == 2
    for number, step in enumerate(found["steps"], 1):
        assert step["macs"] == pytest.approx(found["macs_before"] * 0.4 ** (number / 2), rel=0.04)
        x = torch.rand(1, 3, 32, 32)
        darknet, torch_one = (
            load_model(step["cfg"], step["weights"]),
            load_model(step["cfg"], step["checkpoint"]),
        )
        assert torch.equal(darknet(x), torch_one(x)) and step["proof_error"] < 1e-5
    last, final = found["steps"][-1], load_model(found["cfg"], found["weights"])
    assert torch.equal(final(x), darknet(x)) and found["final_map50"] == last["map50_recovered"]
    assert found["macs_after"] == last["macs"] and found["params_after"] == last["params"]
    assert (work / "slim.png").read_bytes()[:4] == b"\x89PNG" and "step 2 *" in out and "proof:" in out
    assert len(found["dose"]) == 2 and found["sparse_map50"] == last["map50_sparse"]
    before = contents(work)
    code, lines, out = run("--target-macs", "0.4")
    assert (code, lines) == (0, []) and "===" not in out, "nothing is done again"
    assert contents(work) == before


def test_a_trained_network_is_only_measured(run, bench):
    save_weights(load_model("net.cfg"), "net.weights")
    before = (bench / "net.weights").read_bytes()
    code, lines, out = run("--weights", "net.weights", "--rate", "0.3")
    assert (code, lines) == (0, []) and "dense training" not in out
    assert not (bench / "runs/slim/dense.pth").exists() and (bench / "net.weights").read_bytes() == before
    widths = [step["percent"] for step in report(bench / "runs/slim")["steps"]]
    assert widths == pytest.approx([1 - 0.7**0.5] * 2, abs=1e-9)


def test_every_step_trains_on_other_batches(run, bench):
    """The seeds of the trainings differ, and the epochs of the recipe are shared out."""
    run("--rate", "0.3")
    done = {
        p.relative_to(bench / "runs/slim").as_posix(): json.loads(p.read_text())
        for p in bench.rglob("*.json")
    }
    trained = [
        done[f"{name}.json"]
        for name in ("dense", "step1/sparse", "step1/tuned", "step2/sparse", "step2/tuned")
    ]
    assert [t["seed"] for t in trained] == [0, 1, 2, 3, 4]
    assert [len(t["history"]) for t in trained] == [1, 1, 1, 1, 1]


# ------------------------------------------------------------------------------------------------ what
# chooses


def choosing(monkeypatch, scores):
    """Puts scores in place of those of the pictures that choose, in the order in which they are asked for."""
    from darkslim.pipelines import slim_stages

    real, scores = slim_stages.evaluate, iter(scores)

    def evaluate(settings, *rest):
        result = real(settings, *rest)
        return result if settings.images is None else {**result, "map50": next(scores)}

    monkeypatch.setattr(slim_stages, "evaluate", evaluate)


def test_a_step_that_loses_too_much_is_not_handed_back(run, bench, monkeypatch):
    choosing(monkeypatch, [0.5, 0.49, 0.47])
    code, _, out = run("--max-map-drop", "0.02", "--iterative-steps", "2", "--rate", "0.5")
    found = report(bench / "runs/slim")
    assert code == 0 and found["chosen"] == 1 and len(found["steps"]) == 2
    assert "step 2 loses 0.0300 of mAP50, more than 0.02: step 1 is handed back" in out and "step 1 *" in out
    assert found["params_after"] == found["steps"][0]["params"] > found["steps"][1]["params"]
    assert (bench / "runs/slim/slim.weights").read_bytes() == (
        bench / "runs/slim/step1/tuned.weights"
    ).read_bytes()


def test_no_step_is_good_enough(run, bench, monkeypatch, capfd):
    choosing(monkeypatch, [0.5, 0.1])
    code, said = perform(capfd, "slim", [*ALWAYS, "--max-map-drop", "0.02", "--rate", "0.5"])
    found = report(bench / "runs/slim")
    assert code == 0 and found["chosen"] == 0 and "warning: no step keeps mAP50 within 0.02" in said.err
    assert found["params_after"] == found["params_before"] and found["final_map50"] == found["dense_map50"]
    load_model(found["cfg"], found["weights"])


def test_what_chooses_is_held_out_of_what_trains(run, bench):
    code, _, out = run("--max-map-drop", "1", "--rate", "0.3")
    work = bench / "runs/slim"
    held, rest = ((work / name).read_text().split() for name in ("choose.txt", "train.txt"))
    whole = (bench / "train.txt").read_text().split()
    assert (
        code == 0 and len(held) == 2 and sorted([*held, *rest]) == sorted(whole) and not set(held) & set(rest)
    )
    assert (
        "chosen by:  mAP on 2 pictures drawn from train.txt by the seed, which no training of this run sees"
        in out
    )
    assert report(work)["choose_on"].endswith("choose.txt")
    assert "train: 8 images" in out and "train: 10 images" not in out


def test_with_a_test_list_valid_chooses_and_test_judges(run, bench):
    write(bench / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\ntest=test.txt\nnames=two.names\n")
    write(bench / "test.txt", "images/11.png\n")
    code, _, out = run("--max-map-drop", "1", "--rate", "0.3")
    found = report(bench / "runs/slim")
    assert (
        code == 0
        and "chosen by:  mAP on the 3 pictures of valid.txt, since two.data names a test list" in out
    )
    assert (
        found["choose_on"] == "valid.txt"
        and found["test_final_map50"] is not None
        and "train: 10 images" in out
    )


# ------------------------------------------------------------------------------- kills and signals


def start(*flags) -> forked.Process:
    return forked.start("slim", [*ALWAYS, *flags], ".")


def appears(path, process) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_killed_anywhere_it_ends_with_the_same_files(run, bench):
    """Behind two stages, a little later, SIGKILL; then the same line to its end."""
    flags = ("--rate", "0.5", "--max-map-drop", "1")
    assert run(*flags, "--work", "whole")[0] == 0
    draw = random.Random(1)
    for stage in ("run", "step1/sparse"):
        process = start(*flags, "--work", "cut")
        appears(bench / "cut" / f"{stage}.json", process)
        time.sleep(draw.random() * 0.2)
        process.kill()
        process.communicate()
    code, err, _ = run(*flags, "--work", "cut")
    assert code == 0, err
    assert contents(bench / "cut") == contents(bench / "whole")


def test_a_signal_ends_it_in_order(run, bench):
    process = start("--rate", "0.5", "--epochs", "400")
    appears(bench / "runs/slim/dense.last.pth", process)
    code, lines, _ = run("--rate", "0.5", "--epochs", "400")
    assert code == 2 and "another run" in lines[0] and len(lines) == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and err.strip().count("\n") == 0
        and "the same line goes on from there" in err
    )
    state = torch.load(bench / "runs/slim/dense.last.pth", weights_only=True)
    assert state["extra"]["progress"]["step"] > 0 and not (bench / "runs/slim/dense.json").exists()


# ------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    "flags, where, words",
    [
        (["--recipe", "nix"], "--recipe: 'nix' is none", "one of depgraph, gates, oneshot, polarize, slim"),
        (["--recipe", "no.ini"], "no.ini", "no such"),
        (["--rate", "1"], "argument --rate: 1 is outside 0 to 0.99", ""),
        (["--rate", "nan"], "argument --rate: nan is outside", ""),
        (["--iterative-steps", "0"], "argument --iterative-steps: 0 is outside", ""),
        (["--iterative-steps", "-1"], "argument --iterative-steps: ", ""),
        (["--iterative-steps", "3"], "--finetune_epochs: 2 epochs for 3 steps", "at least one a step"),
        (
            ["--iterative-steps", "3", "--finetune_epochs", "3"],
            "--sparse_epochs: 2 epochs for 3 steps",
            "none, or",
        ),
        (["--max-map-drop", "nan"], "argument --max-map-drop: nan", ""),
        (["--max-map-drop", "-0.1"], "argument --max-map-drop: -0.1 is outside", ""),
        (["--target-macs", "0.5", "--target-params", "0.5"], "--target-", "leave one of them out"),
        (["--target-macs", "5G"], "--target-macs: is ", "times what net.cfg has"),
        (["--target-params", "1.0"], "--target-params: is 1 times", ""),
        (["--target-params", "20"], "--target-params: 20 parameters cannot be reached", "leaves at least"),
        (["--target-latency", "soon"], "argument --target-latency: 'soon' is neither", ""),
        (["--choose_on", "none.txt", "--max-map-drop", "0.1"], "none.txt", "no such"),
        (["--weights", "none.pth"], "none.pth", "no such"),
        (["--work", "net.cfg"], "--work: net.cfg is no folder", ""),
        (["--work", "images"], "--work: images holds other files", "give another --work"),
        (["--json", "net.cfg"], "--json: net.cfg is what --model_def reads", ""),
        (["--json", "config/recipes/two.ini"], "--json: config/recipes/two.ini is what --recipe reads", ""),
        (["--img_size", "33"], "", "no multiple"),
        (["--score", "luck"], "argument --score: ", "luck"),
        (["--device", "tpu"], "--device: 'tpu'", ""),
    ],
)
def test_bad_requests_change_nothing(refused, flags, where, words):
    refused(where, words, *flags)


@pytest.mark.parametrize(
    "content, words",
    [
        ("[slim]\nscor = l1\n", "scor is no setting; did you mean score?"),
        ("[slim]\nscore = luck\n", "score: luck is none of gamma"),
        ("[slim]\nrate = 2\n", "rate: 2 is outside 0 to 0.99"),
        ("[slim]\nmultiscale_training = perhaps\n", "multiscale_training: perhaps is neither on nor off"),
        ("[slim]\nwork = elsewhere\n", "sets work; what a run says itself"),
        ("[slim]\nrate = 0.1\nrate = 0.2\n", "is no recipe"),
        ("[other]\nrate = 0.1\n", "has sections other; one section, [slim]"),
        ("", "has sections none"),
        ("rate = 0.1\n", "is no recipe"),
        ("[slim\n", "is no recipe"),
        (b"\xff\xfe\0", "UTF-16"),
        (b"[slim]\nscore = \xff\n", "UTF-8"),
    ],
)
def test_bad_recipes_change_nothing(refused, bench, content, words):
    write(bench / "bad.ini", content)
    refused("bad.ini", words, "--recipe", "bad.ini")


def test_a_folder_of_another_run_is_left_alone(run, refused, bench):
    assert run("--rate", "0.5")[0] == 0
    refused("--work: runs/slim belongs to a run with rate 0.5, and this one has 0.4", "", "--rate", "0.4")
    refused("--work: runs/slim belongs to a run with seed 0", "", "--rate", "0.5", "--seed", "1")
    write(bench / "valid.txt", "images/12.png\n")
    refused("--work: runs/slim belongs to a run with the content of valid.txt", "", "--rate", "0.5")


def test_a_damaged_result_is_named(run, bench):
    assert run("--rate", "0.5")[0] == 0
    write(bench / "runs/slim/report.json", "[1, 2")
    code, lines, _ = run("--rate", "0.5")
    assert code == 2 and len(lines) == 1 and "report.json: is no result of a stage" in lines[0]


def test_faulty_pictures_are_found_before_anything_is_written(refused, bench):
    write(bench / "labels/3.txt", "7 0.5 0.5 0.1 0.1\n")
    refused("train.txt", "labels/3.txt:1")


@functools.cache
def recipes() -> list[str]:
    return sorted(p.stem for p in (ROOT / "config/recipes").glob("*.ini"))


@pytest.mark.parametrize("name", recipes())
def test_the_recipes_of_the_project_can_be_read(name, bench):
    from darkslim.pipelines import SlimSettings

    settings = SlimSettings(recipe=name)
    assert settings.recipe == name and settings.finetune_epochs >= settings.iterative_steps
    text = (ROOT / "config/recipes" / f"{name}.ini").read_text()
    assert text.startswith("#"), "a recipe says what it is and where it comes from"
    assert SlimSettings(recipe=name, score="fpgm").score == "fpgm"
    assert (
        np.isclose(SlimSettings(recipe="depgraph").rate, 0.5)
        and SlimSettings(recipe="depgraph").sparse_epochs == 0
    )
