"""Many ratios: the deepest that is good, against all of them tried, and the networks of a sweep."""

from __future__ import annotations

import random

import pytest
import torch
from random_cfgs import randomise
from small_networks import build, conv

from darkslim.base.errors import RequestError
from darkslim.pruning.plan import plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.sweep import STEP, deepest, sweep

RATIOS = [round(i * STEP, 6) for i in range(101)]


class Judge:
    """Says of each ratio what a list says, and remembers what it was asked."""

    def __init__(self, good: dict[float, bool]):
        self.good, self.asked = good, []

    def __call__(self, ratio: float) -> bool:
        self.asked.append(ratio)
        return self.good[ratio]  # KeyError for a ratio that is no multiple of STEP


def test_the_deepest_of_a_judge_that_changes_its_mind_once():
    for last in RATIOS:
        judge = Judge({ratio: ratio <= last for ratio in RATIOS})
        assert deepest(judge) == last
        assert len(judge.asked) <= 7 and len(set(judge.asked)) == len(judge.asked)


@pytest.mark.parametrize("seed", range(30))
def test_the_deepest_of_a_judge_that_wavers(seed):
    """What is found is good (or 0, which is not asked), was judged itself, and the next ratio is not good."""
    rng = random.Random(seed)
    good = {ratio: rng.random() > ratio for ratio in RATIOS}
    judge = Judge(good)
    found = deepest(judge)
    assert found == 0 or (good[found] and found in judge.asked)
    assert found == 1 or not good[round(found + STEP, 6)]


def test_low_is_taken_to_be_good_and_nothing_above_high_is_asked():
    assert deepest(lambda ratio: False, 0.3, 0.9) == 0.3
    assert deepest(lambda ratio: True, 0.3, 0.9) == 0.9
    assert deepest(lambda ratio: ratio <= 0.555, 0.3, 0.9) == 0.55
    asked = []
    assert deepest(lambda ratio: asked.append(ratio) is None, 0, 0.555) == 0.55 and max(asked) == 0.55
    assert deepest(lambda ratio: True, 0.5, 0.5) == 0.5


def model_of_twenty():
    return randomise(build(conv(10, 3, "leaky"), conv(10, 3, "leaky")), 6)


def test_a_sweep_is_what_single_cuts_are():
    model = model_of_twenty()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = list(sweep(model, [0.5, 0.1, 0.3], score="l1", fold="interior"))
    assert [decision.percent for decision, _ in found] == [0.1, 0.3, 0.5] and [d.cut for d, _ in found] == [
        2,
        6,
        10,
    ]
    for decision, compact in found:
        alone = plan(model, decision.percent, score="l1", fold="interior")
        assert all((alone.keep[layer] == keep).all() for layer, keep in decision.keep.items())
        expected = apply(model, alone, "interior").state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in compact.state_dict().items())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_sweep_ends_at_the_floors():
    found = [decision for decision, _ in sweep(model_of_twenty(), [0.2, 0.6, 0.7, 0.8, 1.0], layer_keep=0.4)]
    assert [(d.percent, d.cut) for d in found] == [
        (0.2, 4),
        (0.6, 12),
    ]  # 4 of 10 stay in each layer, so 12 is all there is
    found = [
        decision.percent for decision, _ in sweep(model_of_twenty(), [0.6, 0.9, 0.6, 0.95], layer_keep=0.1)
    ]
    assert found == [0.6, 0.9]


def test_ratios_that_cut_the_same_are_tried_once():
    """Twenty channels: 0.02 cuts none more than 0, 0.12 no more than 0.1."""
    assert [(d.percent, d.cut) for d, _ in sweep(model_of_twenty(), [0, 0.02, 0.1, 0.12, 0.15])] == [
        (0, 0),
        (0.1, 2),
        (0.15, 3),
    ]


def test_a_sweep_refuses_what_plan_refuses():
    with pytest.raises(RequestError, match="percent"):
        list(sweep(model_of_twenty(), [0.5, 1.5]))
    with pytest.raises(RequestError, match="strategy"):
        list(sweep(model_of_twenty(), [0.5], strategy="best"))
