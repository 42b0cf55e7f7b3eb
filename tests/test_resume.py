"""A training that was stopped and resumed equals one that was not, bit for bit: every penalty, at an epoch's
end and inside one, with and without worker processes.
"""

from __future__ import annotations

import pytest
import torch
from commands import picture, write
from test_slim_command import CFG

from darkslim.base.errors import Interrupted
from darkslim.base.observer import Observer
from darkslim.base.signals import StopFlag
from darkslim.pipelines import TrainSettings, train
from darkslim.training import loop
from darkslim.training.penalties import PENALTIES

DROPOUT = "[dropout]\nprobability=0.5\n\n"  # draws from the generator of the process
PRESS = {"gate": 1000.0, "prox": 300.0}
EPOCHS, STEPS = 3, 3  # of one epoch


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at = CFG.rindex("[convolutional]")
    write(tmp_path / "net.cfg", CFG[:at] + DROPOUT + CFG[at:])
    for i in range(8):
        picture(tmp_path / "images" / f"{i}.png")
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    write(tmp_path / "train.txt", "".join(f"images/{i}.png\n" for i in range(6)))
    write(tmp_path / "valid.txt", "".join(f"images/{i}.png\n" for i in range(6, 8)))
    write(tmp_path / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\n")


def settings(name: str, **changes) -> TrainSettings:
    common = {"model_def": "net.cfg", "data_config": "two.data", "device": "cpu", "amp": "off", "n_cpu": 0}
    common |= {"batch_size": 2, "epochs": EPOCHS, "evaluation_interval": 0, "keep": "last", "mosaic": 0.5}
    return TrainSettings(**{**common, "checkpoint": f"{name}.pth", "logdir": f"logs-{name}", **changes})


class StopsAfter(Observer):
    """Asks for an end so early that it comes after that many steps: the step under way is finished."""

    def __init__(self, steps: int):
        self.left, self.flag = steps - 1, StopFlag()

    def step_done(self, run, parts, lr, images):
        self.left -= 1
        if not self.left:
            self.flag.name = "SIGINT"


def result(name: str) -> dict:
    """Weights, optimizer and all else that a run left."""
    kept = torch.load(f"{name}.pth", weights_only=True)["model"]
    state = torch.load(f"{name}.last.pth", weights_only=True)
    return {"kept": kept, "model": state["model"], "optimizer": state["extra"]["optimizer"]["state"]} | {
        key: state["extra"][key] for key in ("ema", "constraints", "rng")
    }


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def stopped_and_resumed(steps: int, **changes) -> None:
    stops = StopsAfter(steps)
    with pytest.raises(Interrupted):
        train(settings("parts", **changes), stops, stops.flag)
    progress = torch.load("parts.last.pth", weights_only=True)["extra"]["progress"]
    assert progress["epoch"] * STEPS + progress["batch"] == steps
    train(settings("parts", **changes, resume=True))


def kinds() -> list[tuple[str | None, int, int]]:
    """(penalty or int8, worker processes, steps after which it is stopped)."""
    rows = [(penalty, 0, steps) for penalty in (None, "int8", *PENALTIES) for steps in (4, 6)]
    return [*rows, (None, 2, 4), ("gate", 2, 6)]


@pytest.mark.parametrize("penalty, workers, steps", kinds())
def test_resumed_is_as_if_never_stopped(bench, penalty, workers, steps):
    changes = {"n_cpu": workers}
    if penalty == "int8":
        changes |= {"int8": True}
    elif penalty:
        s = PRESS.get(penalty, 0.5)
        changes |= {"sr": True, "sr_penalty": penalty, "s": s, "strategy": "slim"}
    whole = train(settings("whole", **changes))
    stopped_and_resumed(steps, **changes)
    first, second = result("whole"), result("parts")
    for part in first:
        assert same(first[part], second[part]), part
    assert whole["steps"] == EPOCHS * STEPS
    if penalty in ("gate", "prox"):
        values = [
            v
            for k, v in first["model"].items()
            if k == "gates.value" or "batch_norm" in k and k.endswith("weight")
        ]
        assert any((v == 0).any() for v in values), "the penalty was at work"


def test_a_state_without_its_random_numbers_would_not_do(bench, monkeypatch):
    """The control: what the test above finds equal depends on what is saved."""
    train(settings("whole"))
    load = loop.Run.load

    def forgets(self, state, path="state"):
        load(self, {**state, "rng": torch.Generator().manual_seed(1).get_state()}, path)

    monkeypatch.setattr(loop.Run, "load", forgets)
    stopped_and_resumed(4)
    assert not same(result("whole")["model"], result("parts")["model"])
