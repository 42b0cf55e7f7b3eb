"""The sparsity doctor: what it finds safe is safe, it leaves the network alone, and it warns in time."""

from __future__ import annotations

import pytest
import torch
from test_training_loop import TINY, make_run, tiny

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.pipelines.doctor import HARDLY, Doctor
from darkslim.training.penalties import PENALTIES
from darkslim.training.prunable import pressed

STEPS, EPOCHS = 4, 10  # of an epoch, of the run


def batches(count: int = 2) -> list:
    g = torch.Generator().manual_seed(3)
    targets = torch.rand(4, 6, generator=g) * 0.5 + 0.2
    targets[:, 0], targets[:, 1] = torch.arange(4), 0
    pictures = torch.randint(0, 256, (count, 4, 3, 32, 32), generator=g, dtype=torch.uint8)
    return [(some, targets) for some in pictures]


def doctor(penalty: str = "l1", s: float = 0.5, model=None) -> Doctor:
    run = make_run(model or tiny(), s=s, penalty=penalty)
    return Doctor(run, "normal", batches(), run.schedule.all() * 2, EPOCHS)


def epoch(doc: Doctor, number: int, **row) -> tuple[dict, list[str]]:
    """An epoch that ends in the history, as the loop does it, and what the doctor says."""
    doc.run.progress.step = number * STEPS
    row = {"epoch": number, **row}
    doc.run.progress.next_epoch(row)
    return row, doc.look(row)


def spread(doc: Doctor, small: int, value: float = 0.0) -> None:
    """The first `small` of what is pressed get a value, the others 1."""
    values = torch.ones(doc.penalty.channels)
    values[:small] = value
    doc.penalty.pressed.set(values)


@pytest.mark.parametrize("penalty", ["l1", "gate"])
def test_the_safe_cut_is_safe_and_the_network_is_left_as_it_was(penalty):
    doc = doctor(penalty)
    spread(doc, 9, 1e-4)
    before = {k: v.clone() for k, v in doc.run.model.state_dict().items()}
    numbers = torch.get_rng_state()
    row, said = epoch(doc, 1)
    assert row["near_zero"] == pytest.approx(9 / doc.penalty.channels) and not said
    assert row["safe"] >= 0.6, "nine of fourteen are gone already"
    assert all(torch.equal(v, before[k]) for k, v in doc.run.model.state_dict().items())
    assert doc.run.model.training and torch.equal(numbers, torch.get_rng_state())
    # what it found: the loss with that share at zero
    whole = doc.loss()
    weakest = doc.penalty.pressed.values().abs().argsort(stable=True)
    values = doc.penalty.pressed.values()
    values[weakest[: int(row["safe"] * len(values))]] = 0
    doc.penalty.pressed.set(values)
    assert doc.loss() <= (1 + HARDLY) * whole


def test_nothing_is_safe_where_every_cut_is_felt(monkeypatch):
    doc = doctor()
    spread(doc, 0)
    assert epoch(doc, 1)[0]["safe"] > 0
    monkeypatch.setattr("darkslim.pipelines.doctor.HARDLY", -1.0)  # not even what costs nothing
    row, _ = epoch(doc, 2)
    assert row["near_zero"] == 0 and row["safe"] == 0.0
    without = Doctor(doc.run, "normal", [], doc.rates, EPOCHS)
    assert epoch(without, 3)[0]["safe"] is None


def test_it_goes_on_from_the_cut_of_the_epoch_before():
    doc = doctor()
    spread(doc, 14, 1e-6)  # all alike: near none of them, though all could go
    found = []
    for number in range(1, 5):
        found.append(epoch(doc, number)[0]["safe"])
    assert found == sorted(found) and found[-1] > found[0] > 0


def moved(doc: Doctor, quintile: float) -> None:
    doc.penalty.pressed.set(torch.full((doc.penalty.channels,), quintile))


def test_gammas_that_do_not_move_are_warned_about_once():
    doc = doctor(s=1e-3)
    moved(doc, 1.0)
    assert not epoch(doc, 1)[1]
    moved(doc, 0.99)
    assert not epoch(doc, 2)[1], "too early"
    moved(doc, 0.97)
    said = epoch(doc, 6)[1]
    assert (
        len(said) == 1 and "the gammas hardly move: the smallest fifth lay below 1 after epoch 1" in said[0]
    )
    assert "larger --s (0.01)" in said[0], "ten times, at most"
    assert not epoch(doc, 7)[1], "once"
    quick = doctor(s=1e-3)
    moved(quick, 1.0)
    epoch(quick, 1)
    moved(quick, 0.5)
    assert not epoch(quick, 6)[1], "at this pace they arrive"


def test_map_that_falls_faster_than_sparsity_grows_is_warned_about():
    doc = doctor()
    spread(doc, 2)
    assert not epoch(doc, 1, map50=0.8)[1]
    spread(doc, 3)
    assert not epoch(doc, 2, map50=0.75)[1], "a fourteenth more near zero for .05"
    said = epoch(doc, 3, map50=0.6)[1]
    assert len(said) == 1 and "mAP50 fell by 0.200 since epoch 1" in said[0] and "--s (0.25)" in said[0]
    assert not epoch(doc, 4, map50=0.5)[1], "once"


def test_a_network_of_which_nothing_can_be_pressed_has_no_doctor():
    text = TINY.replace("batch_normalize=1\n", "")
    model = Darknet(parse_cfg(text)).train()
    assert not pressed(model)
    run = make_run(model, s=0.5)
    assert Doctor(run, "normal", batches(), [0.1] * 40, EPOCHS).look({"epoch": 1}) == []
    assert set(PENALTIES) == {"l1", "prox", "polarization", "group", "gate"}
