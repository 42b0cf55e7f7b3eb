"""Floors, slices and rounding: by hand, and against all thresholds tried one after the other."""

from __future__ import annotations

import random

import numpy as np
import pytest
from random_cfgs import random_network
from small_networks import build, conv, section

from darkslim.network.channels import STRATEGIES, Channels
from darkslim.pruning import policy
from darkslim.pruning.rules import Rules

HALF = section("route", layers=-1, groups=2, group_id=1)
ADD = section("shortcut", from_=-2, activation="linear")


def rules_of(
    *sections: str,
    worst_first: list[tuple[int, int]] | None = None,
    layer_keep=0.0,
    round_to=1,
    strategy="group",
) -> Rules:
    """Rules whose order is that of the layers' channels, or starts with the (layer, channel) given."""
    channels = Channels(build(*sections).graph)
    order = [int(channels.ids[layer][channel]) for layer, channel in worst_first or []]
    order += [c for c in channels.prunable(strategy).tolist() if c not in order]
    return Rules(channels, np.array(order), layer_keep, round_to)


def kept(rules: Rules, cut: np.ndarray, layer: int) -> list[int]:
    return np.flatnonzero(rules.keep_of(cut)[layer]).tolist()


@pytest.mark.parametrize(
    "filters, layer_keep, floor",
    [(4, 0.0, 1), (4, 0.3, 2), (30, 0.1, 3), (3, 1.0, 3), (100, 0.07, 7), (7, 0.01, 1)],
)
def test_floors(filters, layer_keep, floor):
    rules = rules_of(conv(filters), layer_keep=layer_keep)
    assert rules.floors == {0: floor}
    assert kept(rules, rules.first(filters), 0) == list(range(filters - floor, filters))  # the best stay


def test_what_is_counted():
    rules = rules_of(conv(3), conv(4), conv(4), ADD)
    assert rules.total == 3 + 8 and rules.layers == [0, 1, 2]
    assert [rules.requested(share) for share in (0, 0.3, 0.5, 3 / 11, 1)] == [0, 3, 5, 3, 11]
    assert [rules.amount(rules.first(n)) for n in range(8)] == [
        0,
        1,
        2,
        2,
        4,
        6,
        8,
        8,
    ]  # the floors bring the third and the seventh back
    assert rules.first(5).sum() == 4 and kept(rules, rules.first(5), 0) == [2]
    assert kept(rules, rules.first(5), 1) == kept(rules, rules.first(5), 2) == [2, 3]


def test_the_request_is_met_with_the_fewest_that_do():
    rules = rules_of(conv(3), conv(4), conv(4), ADD)
    for requested, amount in ((0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (5, 6), (8, 8), (11, 8)):
        assert rules.amount(rules.meet(requested)) == amount, requested


@pytest.mark.parametrize(
    "width, round_to, extra, kept_, expected",
    [
        (8, 4, 0, 1, 4),
        (8, 4, 0, 4, 4),
        (8, 4, 0, 5, 8),
        (6, 4, 0, 5, 6),
        (6, 4, 0, 4, 4),
        (8, 4, 1, 5, 7),
        (8, 4, 1, 3, 3),
        (8, 4, 2, 1, 2),
        (6, 4, 1, 4, 6),
        (8, 16, 0, 1, 8),
        (9, 3, 2, 4, 4),
        (9, 3, 2, 5, 7),
    ],
)
def test_rounding_with_carriers(width, round_to, extra, kept_, expected):
    """What is kept beside `extra` carriers, so that both together are a multiple, or the whole layer."""
    rules = rules_of(conv(width), round_to=round_to)
    rules.extra = {0: extra}
    assert rules.rounded(0, kept_) == expected
    assert expected == width or (expected + extra) % round_to == 0


def test_rounding_takes_back_the_best():
    worst = [(0, 7), (0, 2), (0, 5), (0, 0), (0, 1)]
    rules = rules_of(conv(8), worst_first=worst, round_to=4)
    assert kept(rules, rules.first(3), 0) == list(range(8))  # 5 are rounded up to 8
    assert kept(rules, rules.first(4), 0) == kept(rules, rules.first(5), 0) == [1, 3, 4, 6]
    rules.extra = {0: 1}
    assert kept(rules, rules.first(5), 0) == [3, 4, 6]  # and a carrier
    assert kept(rules, rules.first(4), 0) == list(range(7))


def test_rounding_of_one_member_widens_all():
    """What rounding brings back in one layer comes back in all that it is joined with."""
    rules = rules_of(conv(4), conv(4), ADD, worst_first=[(0, 3), (0, 1)], round_to=4)
    assert not rules.first(2).any() and not rules.first(3).any() and not rules.first(4).any()
    rules = rules_of(conv(4), conv(4), ADD, worst_first=[(0, 3), (0, 1)], round_to=2)
    assert kept(rules, rules.first(3), 0) == kept(rules, rules.first(3), 1) == [0, 2]


def test_slices_keep_equally_many_and_the_best():
    worst = [(0, 0), (0, 1), (0, 2), (0, 5)]
    rules = rules_of(conv(8), HALF, worst_first=worst)
    assert rules.slices == [(0, 2)]
    assert kept(rules, rules.first(1), 0) == list(range(8))  # one half would keep 3, the other 4
    assert kept(rules, rules.first(4), 0) == [1, 2, 3, 4, 6, 7]  # one each: 5, and of 0, 1, 2 the worst
    assert kept(rules, rules.first(8), 0) == [3, 7]


def test_a_grouped_class_comes_back_whole():
    """Six filters in two groups, classes {0, 3}, {1, 4}, {2, 5}; a floor of three channels brings back two
    classes.
    """
    rules = rules_of(conv(4), conv(6, groups=2), worst_first=[(1, 0), (1, 1), (1, 2)], layer_keep=0.5)
    assert rules.floors == {0: 2, 1: 3}
    assert kept(rules, rules.first(3), 1) == [1, 2, 4, 5]


def drawn(seed: int) -> Rules | None:
    """Rules over a random network, by a random strategy."""
    rng, model = random.Random(seed), random_network(seed, rare=seed % 3 > 0)
    channels, strategy = Channels(model.graph), rng.choice(STRATEGIES)
    classes = channels.prunable(strategy)
    if not len(classes):
        return None
    scores = policy.class_scores(
        model, channels, classes, strategy, rng.choice(("gamma", "l1", "depgraph-max"))
    )
    return Rules(
        channels, classes[np.lexsort((classes, scores))], rng.choice((0, 0.1, 0.3)), rng.choice((1, 1, 2, 4))
    )


@pytest.mark.parametrize("seed", range(24))
def test_any_cut_obeys_the_rules(seed):
    rules, rng = drawn(seed), random.Random(seed)
    channels = rules.channels
    for layer in rules.layers:
        if rng.random() < 0.5:
            rules.extra[layer] = 1
    for count in {rng.randint(0, len(rules.order)) for _ in range(6)}:
        wanted = np.zeros(channels.count, dtype=bool)
        wanted[rules.order[:count]] = True
        cut = rules.first(count)
        assert not (cut & ~wanted).any()  # rules only take back
        assert (rules.applied(cut) == cut).all()  # and have nothing more to say
        for layer in rules.layers:
            keep = ~cut[channels.ids[layer]]
            assert keep.sum() >= rules.floors[layer]
            assert keep.all() or (keep.sum() + rules.extra.get(layer, 0)) % rules.round_to == 0
        for node in channels.graph.nodes:
            assert not cut[channels.ids[node.index]].all(), node.index
        for layer, groups in channels.slices:
            assert len(set((~cut[channels.of(layer)]).reshape(groups, -1).sum(axis=1).tolist())) == 1


def test_the_search_finds_what_trying_all_thresholds_finds():
    tried = 0
    for seed in range(60):
        rules = drawn(seed)
        if rules is None:
            continue
        amounts = [rules.amount(rules.first(n)) for n in range(len(rules.order) + 1)]
        for percent in (0.1, 0.4, 0.7, 1):
            requested = rules.requested(percent)
            enough = [a for a in amounts if a >= requested]
            assert rules.amount(rules.meet(requested)) == (min(enough) if enough else max(amounts)), (
                seed,
                percent,
            )
            tried += 1
    assert tried > 200
