"""Strategies: what a class scores out of its members, and the order that follows, on networks small enough to
see it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pruning_draws import batch_of
from random_cfgs import random_network
from small_networks import build, conv, section

from darkslim.base.errors import RequestError, WeightsError
from darkslim.network.channels import STRATEGIES, Channels
from darkslim.pruning import importance, policy
from darkslim.pruning.importance import Context
from darkslim.pruning.plan import plan
from darkslim.pruning.policy import SCORE_NAMES, class_scores

# four channels that three convolutions make together, and what each strategy is to make of their gammas
FIRST = [0.9, 0.1, 0.5, 0.4]
SECOND = [0.1, 0.8, 0.5, 0.2]
THIRD = [0.05, 0.3, 0.5, 0.75]
ADD = section("shortcut", from_=-2, activation="linear")


def chain(loose=(0.05, 0.6, 0.35)):
    """A loose convolution, layer 0, then layers 1, 2 and 4 joined by two shortcuts."""
    return build(
        conv(3), conv(4), conv(4), ADD, conv(4), ADD, gammas={0: loose, 1: FIRST, 2: SECOND, 4: THIRD}
    )


def of(model, strategy: str, score: str = "gamma", **context) -> dict[tuple[int, int], float]:
    """(layer, channel) of the first member -> score of its class."""
    channels = Channels(model.graph)
    classes = channels.prunable(strategy)
    found = class_scores(model, channels, classes, strategy, score, Context(**context))
    assert found.dtype == np.float64 and found.shape == classes.shape
    return {channels.producers[c][0]: s for c, s in zip(classes.tolist(), found.tolist(), strict=True)}


def joined(model, strategy: str, score: str = "gamma", layer: int = 1) -> list[float]:
    return [s for (first, _), s in of(model, strategy, score).items() if first == layer]


# -------------------------------------------------------------------------------------------------------
# shortcut chains


@pytest.mark.parametrize(
    "strategy, score, expected",
    [
        ("shortcut", "gamma", FIRST),
        ("slim", "gamma", [0.9, 0.8, 0.5, 0.75]),
        ("group", "gamma", [0.35, 0.4, 0.5, 0.45]),
        ("group", "gamma-max", [0.9, 0.8, 0.5, 0.75]),
        ("group", "gamma-l2", [(0.8225 / 3) ** 0.5, (0.74 / 3) ** 0.5, 0.5, (0.7625 / 3) ** 0.5]),
        ("slim", "gamma-l2", [0.9, 0.8, 0.5, 0.75]),  # the best of the members, whatever the name says
        ("shortcut", "gamma-max", FIRST),
    ],
)
def test_scores_of_a_shortcut_chain(strategy, score, expected):
    assert joined(chain(), strategy, score) == pytest.approx(expected)
    assert joined(chain(), strategy, score, layer=0) == pytest.approx([0.05, 0.6, 0.35])


def test_normal_leaves_the_chain_alone():
    assert of(chain(), "normal") == pytest.approx({(0, 0): 0.05, (0, 1): 0.6, (0, 2): 0.35})


@pytest.mark.parametrize(
    "strategy, score, order",
    [
        ("shortcut", "gamma", [1, 3, 2, 0]),
        ("slim", "gamma", [2, 3, 1, 0]),
        ("group", "gamma", [0, 1, 3, 2]),
        ("group", "gamma-l2", [1, 2, 3, 0]),
        ("group", "gamma-max", [2, 3, 1, 0]),
    ],
)
def test_channels_of_a_chain_go_in_the_order_of_their_class(strategy, score, order):
    model = chain(loose=[5, 6, 7])  # the three loose ones are the strongest, so the chain goes first
    for gone in (1, 2, 3):
        p = plan(model, percent=3 * gone / 15, strategy=strategy, score=score, layer_keep=0)
        for layer in (1, 2, 4):
            assert np.flatnonzero(~p.keep[layer]).tolist() == sorted(order[:gone]), layer
        assert p.keep[0].all() and (p.prunable, p.requested, p.cut) == (15, 3 * gone, 3 * gone)


def test_normal_cuts_only_what_is_loose():
    p = plan(chain(), percent=0.7, strategy="normal", layer_keep=0)
    assert p.keep[0].tolist() == [False, True, False] and all(p.keep[layer].all() for layer in (1, 2, 4))
    assert (p.prunable, p.requested, p.cut) == (3, 2, 2)


def test_the_request_counts_channels_not_classes():
    """0.05, then classes of three channels with 0.35 (together), 0.35, 0.4: a fifth of 15 is 3, and the next
    whole class makes it 4.
    """
    p = plan(chain(), percent=0.2, strategy="group", layer_keep=0)
    assert (p.prunable, p.requested, p.cut) == (15, 3, 4)
    assert p.keep[0].tolist() == [False, True, True] and p.keep[1].tolist() == [False, True, True, True]
    assert p.threshold == pytest.approx(0.35)


def test_ties_go_by_layer_and_channel():
    model = build(conv(3), conv(2), conv(2), ADD, gammas={0: [1] * 3, 1: [1] * 2, 2: [1] * 2})
    keep = plan(model, percent=2 / 7, strategy="group", layer_keep=0).keep
    assert keep[0].tolist() == [False, False, True] and keep[1].all()
    keep = plan(model, percent=4 / 7, strategy="group", layer_keep=0).keep
    assert keep[0].tolist() == [False, False, True] and keep[1].tolist() == keep[2].tolist() == [False, True]


def test_gammas_of_a_plan_count_a_class_once_a_channel():
    p = plan(chain(), percent=0, strategy="group", score="l1")
    assert p.gammas == pytest.approx(sorted([0.05, 0.6, 0.35, *[0.35, 0.4, 0.5, 0.45] * 3]))
    assert len(p.scores) == 7 and len(p.gammas) == p.prunable == 15


# ------------------------------------------------------------------------------------------------- grouped
# and depthwise


@pytest.mark.parametrize(
    "strategy, score, expected",
    [
        ("normal", "gamma", [0.5, 0.35]),
        ("shortcut", "gamma", [0.5, 0.35]),
        ("slim", "gamma", [0.9, 0.5]),
        ("group", "gamma-max", [0.9, 0.5]),
        ("group", "gamma-l2", [(0.82 / 2) ** 0.5, (0.29 / 2) ** 0.5]),
    ],
)
def test_a_grouped_convolution_makes_classes_of_equal_positions(strategy, score, expected):
    """Two groups of two filters: 0 goes with 2, 1 with 3, in what it reads and in what it makes."""
    model = build(conv(4), conv(4, groups=2), gammas={0: [1, 2, 3, 4], 1: [0.1, 0.5, 0.9, 0.2]})
    assert joined(model, strategy, score) == pytest.approx(expected)
    assert len(joined(model, strategy, score, layer=0)) == 2


@pytest.mark.parametrize(
    "strategy, score, expected",
    [
        ("shortcut", "gamma", [1, 0.2]),
        ("slim", "gamma", [1, 0.9]),
        ("group", "gamma", [(1 + 0.3 + 0.5) / 3, (0.2 + 0.7 + 0.9) / 3]),
        ("group", "gamma-l2", [(1.34 / 3) ** 0.5, (1.34 / 3) ** 0.5]),
    ],
)
def test_a_depthwise_filter_goes_with_what_it_reads(strategy, score, expected):
    """Two channels, two depthwise filters on each."""
    model = build(conv(2), conv(4, 3, groups=2), gammas={0: [1, 0.2], 1: [0.3, 0.5, 0.7, 0.9]})
    assert joined(model, strategy, score, layer=0) == pytest.approx(expected)
    assert of(model, strategy, score).keys() == {(0, 0), (0, 1)}
    with pytest.raises(RequestError, match="nothing can be pruned by strategy normal"):
        plan(model, strategy="normal")
    p = plan(model, percent=0.5, strategy="shortcut")
    assert (
        (p.prunable, p.cut) == (6, 3)
        and p.keep[0].tolist() == [True, False]
        and p.keep[1].tolist() == [True, True, False, False]
    )


# ------------------------------------------------------------------------------------------------ members
# without gammas


def squeeze():
    """Squeeze and excitation: layers 2 and 3 have no batch norm; layer 3 is one with layer 0."""
    model = build(
        conv(4),
        section("avgpool"),
        conv(2, bn=0, activation="swish"),
        conv(4, bn=0, activation="logistic"),
        section("scale_channels", from_=0),
        gammas={0: [0.3, 0.2, 0.4, 0.1]},
    )
    with torch.no_grad():
        for layer, rows in ((0, [[1.0], [2], [3], [6]]), (3, [[8.0], [4], [4], [0]])):
            kernel = model.convolutions()[layer].weight
            kernel.zero_()
            kernel[:, 0, 0] = torch.tensor(rows)
    return model


@pytest.mark.parametrize(
    "strategy, score, expected",
    [
        ("group", "gamma", [0.3, 0.2, 0.4, 0.1]),
        ("group", "gamma-l2", [0.3, 0.2, 0.4, 0.1]),
        ("slim", "gamma", [0.3, 0.2, 0.4, 0.1]),
        ("shortcut", "gamma", [0.3, 0.2, 0.4, 0.1]),
        # over their means 3 and 4: 1/3 2/3 1 2 and 2 1 1 0
        ("group", "l1", [7 / 6, 5 / 6, 1, 1]),
        ("slim", "l1", [2, 1, 1, 2]),
        ("shortcut", "l1", [1 / 3, 2 / 3, 1, 2]),
    ],
)
def test_a_bare_member_has_no_say_where_gammas_count_and_one_where_kernels_do(strategy, score, expected):
    assert joined(squeeze(), strategy, score, layer=0) == pytest.approx(expected)
    assert of(squeeze(), strategy, score).keys() == {(0, i) for i in range(4)}


def test_a_bare_member_is_cut_with_its_class_and_counted():
    p = plan(squeeze(), percent=0.5, strategy="group")
    assert (p.prunable, p.requested, p.cut) == (8, 4, 4)
    assert p.keep[0].tolist() == p.keep[3].tolist() == [True, False, True, False] and p.keep[2].all()
    assert p.gammas.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])
    assert (2, "has no batch_normalize, so no gamma") in p.protected


def test_the_first_member_that_has_a_score_speaks_for_the_class():
    model = build(conv(2, bn=0), conv(2), ADD, gammas={1: [0.7, 0.2]})
    with torch.no_grad():
        model.convolutions()[0].weight.copy_(torch.tensor([[1.0, 0, 0], [3, 0, 0]]).reshape(2, 3, 1, 1))
    assert joined(model, "shortcut", layer=0) == pytest.approx([0.7, 0.2])
    assert joined(model, "shortcut", "l1", layer=0) == pytest.approx([0.5, 1.5])


# ------------------------------------------------------------------------------------------------------------
# all of them


@pytest.mark.parametrize("seed", range(8))
def test_every_strategy_and_score_against_a_loop_over_members(seed):
    model = random_network(seed)
    channels = Channels(model.graph)
    context = Context(seed, [batch_of(model, seed)])
    values = {name: score(model, channels, context) for name, score in importance.SCORES.items()}
    merges = {"mean": np.mean, "max": np.max, "l2": lambda x: np.sqrt(np.mean(np.square(x)))}
    for strategy in STRATEGIES:
        classes = channels.prunable(strategy)
        for full in SCORE_NAMES:
            name, _, aggregate = full.partition("-")
            merge = merges["max" if strategy == "slim" else aggregate or "mean"]
            expected = []
            for c in classes:
                own = [
                    (layer, values[name][layer][i])
                    for layer, i in channels.producers[c]
                    if layer in values[name]
                ]
                expected.append(
                    merge([s for layer, s in own if strategy != "shortcut" or layer == own[0][0]])
                )
            found = class_scores(model, channels, classes, strategy, full, context)
            assert found == pytest.approx(np.array(expected), rel=1e-9), (strategy, full)


def test_names_that_are_not_known():
    for strategy, score, words in (
        ("best", "gamma", "strategy: 'best'; one of normal, shortcut, slim, group"),
        ("slim", "gamma-min", "score: 'gamma-min'; one of gamma, l1"),
        ("slim", "", "score: ''"),
    ):
        with pytest.raises(RequestError) as e:
            policy.check_names(strategy, score)
        assert words in str(e.value)
        with pytest.raises(RequestError):
            plan(chain(), strategy=strategy, score=score)


def test_a_network_that_diverged_is_refused_whatever_the_score():
    model = chain()
    with torch.no_grad():
        model.batch_norms()[2].weight[3] = float("nan")
    for score in ("random", "l1", "lamp-max"):
        with pytest.raises(WeightsError, match="layer 2 .*gamma of channel 3 is nan"):
            of(model, "group", score)
