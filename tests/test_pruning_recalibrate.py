"""Recalibration: the statistics are those that can be worked out from the pictures, and nothing else
moves.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_cfgs import random_network, randomise
from small_networks import build, conv

from darkslim.base.errors import DatasetError
from darkslim.pruning.plan import plan
from darkslim.pruning.recalibrate import recalibrate
from darkslim.pruning.surgery import apply


def model_of_two():
    return randomise(build(conv(3, activation="leaky"), conv(4, activation="leaky")), 4)


def pictures(*sizes: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(torch.rand(n, 3, 16, 16, generator=g), torch.zeros(0, 6)) for n in sizes]


def statistics(model) -> dict[str, torch.Tensor]:
    return {
        k: v.clone()
        for k, v in model.state_dict().items()
        if k.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }


def by_hand(model, batches) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mean, unbiased variance) of the output of each 1x1 convolution, batch by batch, averaged over
    batches.
    """
    sums = [[0.0, 0.0], [0.0, 0.0]]
    for images, _ in batches:
        x = images.double().numpy()
        for layer in (0, 1):
            kernel = model.convolutions()[layer].weight.detach().double().numpy()[:, :, 0, 0]
            gamma, beta = (
                p.detach().double().numpy()[:, None, None] for p in model.batch_norms()[layer].parameters()
            )
            y = np.einsum("oc,bchw->bohw", kernel, x)
            mean, var = y.mean(axis=(0, 2, 3)), y.var(axis=(0, 2, 3), ddof=1)
            sums[layer][0] += mean / len(batches)
            sums[layer][1] += var / len(batches)
            flat = (y - mean[:, None, None]) / np.sqrt(y.var(axis=(0, 2, 3)) + 1e-5)[:, None, None]
            x = gamma * flat + beta
            x = np.where(x > 0, x, 0.1 * x)
    return sums


def test_statistics_are_the_average_over_batches():
    model, batches = model_of_two(), pictures(2, 5, 3)
    assert recalibrate(model, iter(batches)) == 10
    for layer, (mean, var) in enumerate(by_hand(model, batches)):
        bn = model.batch_norms()[layer]
        assert bn.running_mean.numpy() == pytest.approx(mean, rel=1e-4, abs=1e-5)
        assert bn.running_var.numpy() == pytest.approx(var, rel=1e-4)
        assert int(bn.num_batches_tracked) == 3


def test_what_was_there_before_has_no_say():
    one, two = model_of_two(), model_of_two()
    for bn in two.batch_norms().values():
        bn.running_mean.add_(5)
        bn.running_var.mul_(7)
        bn.num_batches_tracked.fill_(90)
    for model in (one, two):
        recalibrate(model, pictures(2, 2))
        recalibrate(model, pictures(2, 2))
    assert all(
        torch.equal(a, b) for a, b in zip(statistics(one).values(), statistics(two).values(), strict=True)
    )


def test_bytes_are_255ths():
    one, two = model_of_two(), model_of_two()
    pixels = torch.randint(
        0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    recalibrate(one, [(pixels, None)])
    recalibrate(two, [(pixels.float() / 255, None)])
    assert all(
        torch.equal(a, b) for a, b in zip(statistics(one).values(), statistics(two).values(), strict=True)
    )


def test_batches_of_one_picture_are_left_out():
    one, two = model_of_two(), model_of_two()
    single, pair = pictures(1), pictures(2, seed=1)
    assert recalibrate(one, single + pair + single) == recalibrate(two, pair) == 2
    assert all(
        torch.equal(a, b) for a, b in zip(statistics(one).values(), statistics(two).values(), strict=True)
    )


@pytest.mark.parametrize("training", [False, True])
def test_nothing_else_changes(training):
    model = random_network(11).train(training)
    moved = statistics(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for i, bn in enumerate(model.batch_norms().values()):
        bn.momentum = 0.01 * i
    g = torch.Generator().manual_seed(0)
    recalibrate(model, [(torch.rand(2, *model.graph.input_shape, generator=g), None)])
    for key, value in model.state_dict().items():
        assert (key in moved and not torch.equal(value, before[key])) or torch.equal(value, before[key]), key
    assert [bn.momentum for bn in model.batch_norms().values()] == [
        0.01 * i for i in range(len(model.batch_norms()))
    ]
    assert all(module.training == training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    changed = [
        key
        for key in moved
        if key.endswith("running_var") and not torch.equal(model.state_dict()[key], before[key])
    ]
    assert len(changed) == len(model.batch_norms()) > 1


def test_dropout_stays_off():
    text = (conv(3), "[dropout]\nprobability=0.5\n", conv(4))
    one, two = (randomise(build(*text), 1) for _ in range(2))
    for seed, model in ((0, one), (1, two)):
        torch.manual_seed(seed)
        recalibrate(model.train(), pictures(2))
    assert all(
        torch.equal(a, b) for a, b in zip(statistics(one).values(), statistics(two).values(), strict=True)
    )


def test_carriers_stay_the_constants_that_they_are():
    model = randomise(build(conv(8, 3, "leaky"), conv(8, 3, "leaky")), 2)
    p = plan(model, percent=0.5)
    compact = apply(model, p)
    constant = {
        layer: torch.nonzero(bn.weight == 0).flatten().tolist() for layer, bn in compact.batch_norms().items()
    }
    assert constant[0] and len(constant[0]) == compact.graph.nodes[0].shape[0] - int(p.keep[0].sum())
    x = pictures(3, seed=5)[0][0]
    with torch.no_grad():
        before = compact.layer_outputs(x)
        recalibrate(compact, pictures(4, 4))
        after = compact.layer_outputs(x)
    for layer, channels in constant.items():
        for c in channels:
            assert before[layer][:, c].unique().numel() == 1 and torch.equal(
                before[layer][:, c], after[layer][:, c]
            )
    assert not torch.allclose(before[0], after[0])  # the others have moved


@pytest.mark.parametrize(
    "batches, words",
    [
        ([], "no batch of at least two training pictures"),
        (pictures(1, 1), "no batch of at least two training pictures"),
        ([(torch.full((2, 3, 16, 16), float("inf")), None)], "statistics of layer 0 are not finite"),
    ],
)
def test_refusals_leave_everything_as_it_was(batches, words):
    model = model_of_two().train()
    before, momenta = statistics(model), [bn.momentum for bn in model.batch_norms().values()]
    with pytest.raises(DatasetError, match=words):
        recalibrate(model, batches)
    assert all(torch.equal(value, before[key]) for key, value in statistics(model).items())
    assert model.training and [bn.momentum for bn in model.batch_norms().values()] == momenta


def test_an_error_on_the_way_leaves_everything_as_it_was():
    def broken():
        yield pictures(2)[0]
        raise DatasetError("images/3.png", "was removed")

    model = model_of_two()
    before = statistics(model)
    with pytest.raises(DatasetError, match="was removed"):
        recalibrate(model, broken())
    assert all(torch.equal(value, before[key]) for key, value in statistics(model).items())
    assert not any(m.training for m in model.modules()) and all(
        bn.momentum == 0.1 for bn in model.batch_norms().values()
    )
