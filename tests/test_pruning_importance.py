"""Scores of channels: by hand on small layers, and against loops that follow the papers word for word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pruning_draws import batch_of
from random_cfgs import random_network, randomise
from small_networks import build, conv, section

from darkslim.base.errors import DatasetError, RequestError, WeightsError
from darkslim.network.channels import Channels
from darkslim.pruning import importance
from darkslim.pruning.importance import SCORES, Context
from darkslim.pruning.policy import class_scores
from darkslim.training.loss import DetectionLoss


def scores(model, name: str, **context) -> dict[int, np.ndarray]:
    return SCORES[name](model, Channels(model.graph), Context(**context))


def with_kernels(*rows) -> torch.nn.Module:
    """A first layer of 1x1 filters on three channels."""
    model = build(conv(len(rows)))
    with torch.no_grad():
        model.convolutions()[0].weight.copy_(torch.tensor(rows, dtype=torch.float32).reshape(-1, 3, 1, 1))
    return model


def filters(model, layer: int) -> list[np.ndarray]:
    return [f.detach().double().numpy().ravel() for f in model.convolutions()[layer].weight]


# ------------------------------------------------------------------------------------------------------------
# - by hand


def test_norms_of_two_filters():
    model = with_kernels([1, -2, 2], [0, 3, 4])  # L1 5 and 7, L2 3 and 5
    assert scores(model, "l1")[0] == pytest.approx([5 / 6, 7 / 6])
    assert scores(model, "l2")[0] == pytest.approx([3 / 4, 5 / 4])
    assert scores(model, "lamp")[0] == pytest.approx([9 / 34, 1])
    assert scores(model, "fpgm")[0] == pytest.approx([1, 1])  # each is as far from the other


def test_gamma_is_its_size_and_only_where_there_is_one():
    model = build(conv(3), conv(2, bn=0), gammas={0: [0.5, -2, 0.25]})
    found = scores(model, "gamma")
    assert found.keys() == {0} and found[0].tolist() == [0.5, 2, 0.25]
    assert scores(model, "l1").keys() == {0, 1, 2}


def test_fpgm_finds_the_filter_in_the_middle():
    model = with_kernels([0, 0, 0], [1, 0, 0], [4, 0, 0])  # distances 5, 4, 7, mean 16 / 3
    assert scores(model, "fpgm")[0] == pytest.approx([15 / 16, 12 / 16, 21 / 16])


def test_lamp_of_equal_filters_goes_by_their_order():
    assert scores(with_kernels([2, 0, 0], [1, 0, 0], [0, 2, 0]), "lamp")[0] == pytest.approx(
        [4 / 8, 1 / 9, 1]
    )


def test_depgraph_by_hand():
    """Class i: filter i, its gamma, and column i of what reads it."""
    model = build(conv(2), gammas={0: [1, 3]})
    with torch.no_grad():
        model.convolutions()[0].weight.copy_(torch.tensor([[1.0, 2, 2], [0, 0, 1]]).reshape(2, 3, 1, 1))
        model.convolutions()[1].weight.zero_()
        model.convolutions()[1].weight[:2, :, 0, 0] = torch.tensor([[1.0, 2], [3, 0]])
    a, b = 9 + 1 + (1 + 9), 1 + 9 + (4 + 0)
    assert scores(model, "depgraph")[0] == pytest.approx([a / 17, b / 17])


def test_a_layer_of_zeros_scores_zero_and_no_nan():
    model = with_kernels([0, 0, 0], [0, 0, 0])
    with torch.no_grad():
        model.batch_norms()[0].weight.zero_()
        model.convolutions()[1].weight.zero_()
    for name in ("gamma", "l1", "l2", "lamp", "fpgm", "depgraph"):
        assert scores(model, name)[0].tolist() == [0, 0], name


# ------------------------------------------------------------------------------------------------------------
# by loops


@pytest.mark.parametrize("seed", range(6))
def test_scores_of_kernels_against_loops(seed):
    model = random_network(seed)
    found = {name: scores(model, name) for name in ("l1", "l2", "fpgm", "lamp")}
    for layer in model.convolutions():
        rows = filters(model, layer)
        l1 = [float(np.sum(np.abs(r))) for r in rows]
        l2 = [float(np.linalg.norm(r)) for r in rows]
        far = [sum(float(np.linalg.norm(r - other)) for other in rows) for r in rows]
        lamp = [w * w / sum(v * v for v in l2 if v >= w) for w in l2]
        for name, literal in (("l1", l1), ("l2", l2), ("fpgm", far)):
            assert found[name][layer] == pytest.approx(np.array(literal) / np.mean(literal), rel=1e-6), (
                name,
                layer,
            )
        assert found["lamp"][layer] == pytest.approx(lamp), layer


def group_norms(model, channels: Channels) -> tuple[np.ndarray, np.ndarray]:
    """(squared norms of what makes and of what reads each class, without mean and shares), one weight at a
    time.
    """
    made, read = np.zeros(channels.count), np.zeros(channels.count)
    for layer, module in model.convolutions().items():
        weight, groups = module.weight.detach().double().numpy(), module.groups
        sources, ids = channels.of(channels.graph.nodes[layer].inputs[0]), channels.ids[layer]
        depthwise = groups == len(sources) > 1
        for f in range(weight.shape[0]):
            made[ids[f]] += np.sum(weight[f] ** 2)
            if layer in model.batch_norms():
                made[ids[f]] += model.batch_norms()[layer].weight[f].item() ** 2
            for i in range(weight.shape[1]):
                position = f // (weight.shape[0] // groups) * weight.shape[1] + i
                if depthwise:
                    assert sources[position] == ids[f]
                else:
                    read[sources[position]] += np.sum(weight[f, i] ** 2)
    return made, read


@pytest.mark.parametrize("seed", range(30))
def test_depgraph_against_the_group_norm(seed):
    model = random_network(seed)
    channels = Channels(model.graph)
    classes = channels.prunable("group")
    made, read = group_norms(model, channels)
    tied: dict[tuple, list[int]] = {}
    for c in range(channels.count):
        tied.setdefault(tuple(layer for layer, _ in channels.producers.get(c, ())), []).append(c)
    expected = np.zeros(channels.count)
    for group in tied.values():
        expected[group] = (made + read)[group] / np.mean((made + read)[group])
    found = {
        layer: np.bincount(channels.ids[layer], s, channels.count)
        for layer, s in scores(model, "depgraph").items()
    }
    sums = np.sum(list(found.values()), axis=0)
    for c in classes:
        assert sums[c] / len(channels.producers[c]) == pytest.approx(expected[c], rel=1e-6), (seed, c)
    if all(layer in model.batch_norms() for c in classes for layer, _ in channels.producers[c]):
        assert class_scores(model, channels, classes, "group", "depgraph") == pytest.approx(
            expected[classes], rel=1e-6
        )


def test_depgraph_shares_the_readers_among_the_makers():
    """A shortcut's two members have 1 and 4 of their own, and are both read with 6: 1 + 3 and 4 + 3 a
    channel.
    """
    model = build(conv(2, activation="leaky"), conv(2), section("shortcut", from_=-2, activation="linear"))
    with torch.no_grad():
        for layer, filter_ in ((0, [1.0, 0, 0]), (1, [2.0, 0])):
            model.convolutions()[layer].weight.copy_(torch.tensor([filter_, filter_]).reshape(2, -1, 1, 1))
            model.batch_norms()[layer].weight.zero_()
        model.convolutions()[1].weight.copy_(
            torch.tensor([[1.0, 3**0.5], [3**0.5, 1]]).reshape(2, 2, 1, 1)
        )  # rows and columns: 4
        model.convolutions()[3].weight.zero_()
        model.convolutions()[3].weight[0] = 2**0.5
    found = scores(model, "depgraph")
    assert found[0] == pytest.approx([4 / 5.5] * 2) and found[1] == pytest.approx([7 / 5.5] * 2)


def test_grouped_kernels_count_for_what_they_read():
    model = randomise(build(conv(4), conv(4, groups=2)), 3)
    with torch.no_grad():
        for layer in (0, 1):
            model.batch_norms()[layer].weight.zero_()
        model.convolutions()[0].weight.zero_()
        model.convolutions()[1].weight.copy_(
            torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 2]]).reshape(4, 2, 1, 1)
        )
    found = scores(model, "depgraph")[
        0
    ]  # classes {0, 2} read with 1 + 1, {1, 3} with 4; both shared by two channels
    assert found == pytest.approx(np.array([1, 2, 1, 2]) / 1.5)


# ------------------------------------------------------------------------------------------------------------
# -- taylor


def small() -> torch.nn.Module:
    return randomise(
        build(conv(3, 3, "mish"), conv(4, 3, "tanh"), section("shortcut", from_=-1, activation="linear")), 5
    )


def test_taylor_against_finite_differences():
    """Gates of 1 on gamma and beta of each channel in turn, moved a little; in float64, so that the slope is
    one of the loss.
    """
    model = small()
    images, targets = batch_of(model, 1)
    found = scores(model, "taylor", batches=[(images, targets)])
    exact = small().double()
    loss_of, step = DetectionLoss(exact.heads), 1e-6

    def loss(bn, channel: int, gate: float) -> float:
        kept = bn.weight[channel].item(), bn.bias[channel].item()
        bn.weight[channel], bn.bias[channel] = kept[0] * gate, kept[1] * gate
        value = float(loss_of(exact.raw_heads(images.double()), targets.double(), (16, 16))[0])
        bn.weight[channel], bn.bias[channel] = kept
        return value

    assert found.keys() == exact.batch_norms().keys() == {0, 1}
    with torch.no_grad():
        for layer, bn in exact.batch_norms().items():
            for channel in range(bn.num_features):
                slope = (loss(bn, channel, 1 + step) - loss(bn, channel, 1 - step)) / (2 * step)
                assert found[layer][channel] == pytest.approx(abs(slope), rel=1e-3, abs=1e-4), (
                    layer,
                    channel,
                )
    assert min(found[0].min(), found[1].min()) > 1e-3  # so that the comparison says something


def test_taylor_is_the_mean_over_batches_and_leaves_the_model_alone():
    model = small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    a, b = batch_of(model, 1), batch_of(model, 2)
    one, two = scores(model, "taylor", batches=[a]), scores(model, "taylor", batches=[b])
    both = scores(model, "taylor", batches=iter([a, b]))
    for layer in both:
        assert both[layer] == pytest.approx((one[layer] + two[layer]) / 2)
    assert model.training and all(
        torch.equal(value, before[key]) for key, value in model.state_dict().items()
    )
    assert all(p.grad is None for p in model.parameters())


def test_taylor_takes_bytes_as_255ths():
    model = small()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    _, targets = batch_of(model, 1)
    as_bytes, as_floats = (
        scores(model, "taylor", batches=[(x, targets)]) for x in (pixels, pixels.double() / 255)
    )
    for layer in as_bytes:
        assert as_bytes[layer] == pytest.approx(as_floats[layer], rel=1e-5)


def test_taylor_refuses():
    model = small()
    with pytest.raises(RequestError, match="'taylor' without training pictures"):
        scores(model, "taylor")
    with pytest.raises(DatasetError, match="no batch of training pictures"):
        scores(model, "taylor", batches=[])
    images, targets = batch_of(model, 1)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(DatasetError, match="loss of batch 0 is nan"):
        scores(model, "taylor", batches=[(images, targets)])


# ------------------------------------------------------------------------------------------------------------
# ---- rest


def test_random_is_named_by_its_seed():
    model = build(conv(3), conv(4))
    draw = np.random.default_rng(7)
    found = scores(model, "random", seed=7)
    for layer, width in ((0, 3), (1, 4), (2, 12)):
        assert found[layer].tolist() == draw.random(width).tolist()
    assert scores(model, "random", seed=8)[0].tolist() != found[0].tolist()


@pytest.mark.parametrize("name", ["l1", "l2", "fpgm", "lamp", "depgraph"])
def test_kernels_that_are_no_numbers(name):
    model = build(conv(3), conv(4))
    with torch.no_grad():
        model.convolutions()[1].weight[2, 0] = float("inf")
    with pytest.raises(WeightsError, match="layer 1 .*not finite"):
        scores(model, name)


def test_the_distribution_of_gammas():
    found = importance.sparsity(np.arange(101) / 100)
    assert found.quantiles == pytest.approx({0: 0, 10: 0.1, 25: 0.25, 50: 0.5, 75: 0.75, 90: 0.9, 100: 1})
    assert found.near_zero == pytest.approx(2 / 101)  # 0 and 0.01 lie below 0.02 * 0.99
    assert not found.trained
    counted = importance.sparsity(np.arange(100) / 8)  # edges at 99 / 80 do not fall on a value
    assert [count for *_, count in counted.histogram] == [10] * 10
    assert found.histogram[0][0] == 0 and found.histogram[-1][1] == 1
    at_the_mark = np.r_[np.zeros(5), np.ones(95)]  # 5% is where sparsity training begins to show
    assert importance.sparsity(at_the_mark).trained and not importance.sparsity(at_the_mark[1:]).trained
