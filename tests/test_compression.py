"""Sparse weights: which go, masks while training, surgery that brings weights back, least squares on what
stays. Shared values: which there are, and which weight has which.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from random_cfgs import random_network
from test_training_loop import PENALTIES, Disk, copies, make_run, tiny  # noqa: F401

import darkslim.compression.resolve as resolve_module
from darkslim.base.errors import DatasetError, RequestError
from darkslim.compression import compensate, magnitude
from darkslim.compression.allotment import LEVELS, allot, errors
from darkslim.compression.compensate import compensated, damped, onto_shared
from darkslim.compression.masked import Masked
from darkslim.compression.packing import share_all
from darkslim.compression.resolve import on_support, resolve
from darkslim.compression.saliency import _factors, saliencies
from darkslim.compression.sharing import means, share
from darkslim.compression.splicing import Splicing
from darkslim.compression.tied import Tied
from darkslim.network.entropy import entropy_bits
from darkslim.network.patches import Gram
from darkslim.network.twins import twin
from darkslim.network.weights import weights_bytes
from darkslim.training.ema import EMA
from darkslim.training.loop import train_step


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9, 1.0])
def test_the_smallest_of_each_layer_and_of_all(ratio):
    model = random_network(2)
    keep = magnitude.smallest(model, ratio)
    for layer, conv in model.convolutions().items():
        sizes, kept = conv.weight.detach().abs().numpy(), keep[layer]
        assert (~kept).sum() == int(ratio * kept.size + 1e-9)
        if kept.any() and not kept.all():
            assert sizes[~kept].max() <= sizes[kept].min()
    whole = magnitude.smallest(model, ratio, "global")
    sizes = np.concatenate([c.weight.detach().abs().numpy().ravel() for c in model.convolutions().values()])
    kept = np.concatenate([k.ravel() for k in whole.values()])
    assert (~kept).sum() == int(ratio * kept.size + 1e-9)
    if kept.any() and not kept.all():
        assert sizes[~kept].max() <= sizes[kept].min()
    with pytest.raises(RequestError):
        magnitude.smallest(model, 1.5)


def test_two_of_every_four_along_the_input():
    model = random_network(4)
    for layer, kept in magnitude.two_of_four(model).items():
        sizes = model.convolutions()[layer].weight.detach().abs().numpy()
        for start in range(0, kept.shape[1], 4):
            four, part = sizes[:, start : start + 4], kept[:, start : start + 4]
            assert (part.sum(1) == min(2, part.shape[1])).all()
            least = np.where(part, four, np.inf).min(1)
            assert (np.where(part, 0, four).max(1) <= least).all()


def choose(model, done):
    return magnitude.smallest(model, 0.6 * done)


def test_what_a_mask_has_closed_stays_closed_in_weights_momentum_and_average():
    model = tiny()
    masked = Masked(model, choose)
    run = make_run(model, ema=EMA(model, 0.9))
    run.constraints, run.progress.steps = [masked], 20
    shares = []
    for _ in range(20):
        train_step(run, *copies(4))
        for layer, weight in masked.weights.items():
            assert (weight[~masked.masks[layer]] == 0).all()
        shares.append(masked.report()["zeros"])
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] == pytest.approx(0.6, abs=0.01)
    assert shares[14] == shares[-1], "the last quarter trains what is left"
    assert shares[4] > 0.58 * 0.6, "cubic: much of it early"
    average = run.kept
    for layer, conv in average.convolutions().items():
        assert (conv.weight[~masked.masks[layer]] == 0).all() and (conv.weight != 0).any()

    def momenta():
        return [run.optimizer.state[w]["momentum_buffer"].clone() for w in masked.weights.values()]

    before = momenta()
    train_step(run, *copies(4))
    for was, buffer, mask in zip(before, momenta(), masked.masks.values(), strict=True):
        assert torch.allclose(buffer[~mask], 0.9 * was[~mask], rtol=1e-5), "it fades"
        assert not torch.allclose(buffer[mask], 0.9 * was[mask], rtol=1e-2)


def test_a_weight_that_was_cut_returns():
    """A closed weight gets the updates of the masked network, and is back once it is above the threshold."""
    model = tiny()
    surgery = Splicing(model, 0.5, growth=0.0)
    run = make_run(model)
    run.constraints, run.progress.steps = [surgery], 100
    train_step(run, *copies(4))
    layer, weight = next(iter(surgery.weights.items()))
    closed = (~surgery.masks[layer]).nonzero()
    assert len(closed) > 0.3 * weight.numel() and surgery.report()["returned"] == 0
    place = tuple(closed[0].tolist())
    assert weight[place] == 0 and surgery.full[layer][place] != 0
    before = surgery.full[layer][place].clone()
    train_step(run, *copies(4))
    assert surgery.full[layer][place] != before, "it is updated though it is closed"
    surgery.full[layer][place] = 1.5 * surgery.thresholds[layer]  # as gradients would have made it
    train_step(run, *copies(4))
    assert surgery.masks[layer][place] and weight[place] != 0
    assert surgery.returned[layer][place] and surgery.report()["returned"] > 0
    surgery.full[layer][place] = weight.data[place] = 0.0
    train_step(run, *copies(4))
    assert not surgery.masks[layer][place] and surgery.closings[layer][place] == 2
    assert surgery.report()["again"] > 0


def test_between_the_thresholds_nothing_changes_and_the_end_is_quiet():
    model = tiny()
    surgery = Splicing(model, 0.5, growth=0.0)
    layer = next(iter(surgery.weights))
    t = surgery.thresholds[layer]
    sizes = torch.full_like(surgery.weights[layer], t)
    surgery.masks[layer].view(-1)[0] = False
    before = surgery.masks[layer].clone()
    surgery._renew(layer, sizes)
    assert torch.equal(surgery.masks[layer], before)
    run = make_run(model)
    run.constraints, run.progress.steps, run.progress.step = [surgery], 100, 80
    train_step(run, *copies(4))
    assert torch.equal(surgery.masks[layer], before), "the last quarter renews no mask"


def test_surgery_of_weights_that_were_solved_before():
    """What is 0 is closed and may come back, by size times factor."""
    model = tiny()
    with torch.no_grad():
        for conv in model.convolutions().values():
            conv.weight[conv.weight.abs() < conv.weight.abs().median()] = 0.0
    factors = {k: torch.rand_like(conv.weight) + 0.5 for k, conv in model.convolutions().items()}
    thresholds = dict.fromkeys(factors, 1e-9)
    surgery = Splicing(model, 0.5, growth=0.0, factors=factors, thresholds=thresholds)
    layer, weight = next(iter(surgery.weights.items()))
    assert torch.equal(surgery.masks[layer], weight != 0) and surgery.report()["again"] == 0
    closed = tuple((weight == 0).nonzero()[0].tolist())
    open_ = tuple((weight != 0).nonzero()[0].tolist())
    surgery.thresholds[layer] = 1.0
    sizes = torch.full_like(weight, 1.0)
    surgery.full[layer].copy_(sizes / factors[layer])
    surgery.full[layer][closed] *= 1.2
    surgery.full[layer][open_] *= 0.8
    surgery.before_step(None)

    class At:
        share, step = 0.0, 0

    surgery.after_step(At, 0.1)
    assert surgery.returned[layer].nonzero().tolist() == [list(closed)] and weight[closed] != 0
    assert weight[open_] == 0 and surgery.closings[layer][open_] == 1
    again = Splicing(tiny(), 0.5)
    again.load(surgery.state())
    for name in ("full", "masks", "closings", "returned", "factors"):
        for layer in factors:
            assert torch.equal(getattr(again, name)[layer], getattr(surgery, name)[layer])
    assert again.thresholds == surgery.thresholds


def test_masks_are_renewed_ever_more_rarely():
    model = tiny()
    surgery, renewals = Splicing(model, 0.5, growth=0.1, power=1.0), []
    surgery._renew = lambda layer, sizes: renewals.append(layer)

    class At:
        share = 0.0

    for At.step in range(400):
        surgery.after_step(At, 0.1)
    layers = len(surgery.weights)
    expected = sum(1 / (1 + 0.1 * n) for n in range(400))
    assert len(renewals) / layers == pytest.approx(expected, rel=0.25)
    state = surgery.state()
    again = Splicing(tiny(), 0.5, growth=0.1, power=1.0)
    again.load(state)
    assert torch.equal(again.generator.get_state(), surgery.generator.get_state())
    state["masks"][str(next(iter(again.weights)))] = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="expected"):
        again.load(state)


@pytest.mark.parametrize("few, narrow", [(True, 0), (True, 128), (False, 128)])
def test_least_squares_within_a_support(monkeypatch, few, narrow):
    """By the matrix of one filter, of many together, and by conjugate gradients for all of them."""
    monkeypatch.setattr(resolve_module, "NARROW", narrow)
    monkeypatch.setattr(
        resolve_module, "_few", lambda number, _: torch.full_like(number, few, dtype=torch.bool)
    )
    g = torch.Generator().manual_seed(0)
    features = torch.randn(2, 400, 12, generator=g, dtype=torch.float64)
    features[..., 5] = 0.9 * features[..., 4] + 0.1 * features[..., 5]
    weights = torch.randn(2, 12, 3, generator=g, dtype=torch.float64)
    support = torch.rand(2, 12, 3, generator=g) < 0.6
    gram = Gram(2, 12, 3, "cpu")
    gram.add(features, features @ weights + 2.0)
    old = torch.where(support, weights, 0.0)
    found = on_support(gram, old, support)
    ff, fy, _ = gram.centred()
    for group, filter_ in itertools.product(range(2), range(3)):
        s = support[group, :, filter_]
        ridge = 1e-3 * ff[group].diagonal().mean()
        matrix = ff[group][s][:, s] + ridge * torch.eye(int(s.sum()), dtype=torch.float64)
        exact = torch.linalg.solve(matrix, fy[group][s, filter_] + ridge * old[group, s, filter_])
        torch.testing.assert_close(found[group, s, filter_], exact, rtol=1e-4, atol=1e-5)
        assert (found[group, ~s, filter_] == 0).all()


@pytest.mark.parametrize("seed", range(8))
def test_what_stays_comes_no_further_from_what_was(seed):
    dense = random_network(seed)
    sparse = twin(dense)
    magnitude.apply(sparse, magnitude.smallest(sparse, 0.6))
    zero = {layer: conv.weight == 0 for layer, conv in sparse.convolutions().items()}
    g = torch.Generator().manual_seed(seed)
    size = (dense.cfg.channels, dense.cfg.height, dense.cfg.width)
    batches = [(torch.rand(4, *size, generator=g), None) for _ in range(2)]
    before = {k: v.clone() for k, v in dense.state_dict().items()}
    fits = resolve(dense, sparse, batches)
    assert all(f.after <= f.before + 1e-12 for f in fits) and any(f.after < 0.9 * f.before for f in fits)
    for layer, conv in sparse.convolutions().items():
        assert (conv.weight[zero[layer]] == 0).all()
    assert all(torch.equal(v, before[k]) for k, v in dense.state_dict().items())
    with pytest.raises(DatasetError, match="no batch"):
        resolve(dense, sparse, [])


def test_what_a_weight_is_worth():
    """Against the best of the others, worked out for each weight alone."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(9, 9, generator=g, dtype=torch.float64)
    features = torch.randn(1, 300, 9, generator=g, dtype=torch.float64) @ mix
    weights = torch.randn(1, 9, 2, generator=g, dtype=torch.float64)
    weights[0, 3, 0] = 0.0
    gram = Gram(1, 9, 2, "cpu")
    gram.add(features, features @ weights + 5.0)
    costs = (_factors(gram) * weights) ** 2
    ff, _, yy = gram.centred()
    damped(gram, ff)
    for i in range(9):
        others = [j for j in range(9) if j != i]
        part = ff[0][others][:, others]
        for f in range(2):
            moves = torch.linalg.solve(part, ff[0][others, i] * weights[0, i, f])
            gone = torch.zeros(9, dtype=torch.float64)
            gone[others], gone[i] = moves, -weights[0, i, f]
            worse = gone @ ff[0] @ gone / yy[0, f]
            torch.testing.assert_close(costs[0, i, f], worse, rtol=1e-8, atol=1e-12)
    constant = Gram(1, 9, 2, "cpu")
    constant.add(features * 0 + 1, features @ weights * 0 + 5.0)
    assert (_factors(constant) == 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_less_is_lost_by_worth_than_by_size(seed):
    dense = random_network(seed)
    g = torch.Generator().manual_seed(seed)
    size = (dense.cfg.channels, dense.cfg.height, dense.cfg.width)
    batches = [(torch.rand(4, *size, generator=g), None) for _ in range(2)]
    found = saliencies(dense, batches)
    worth = {layer: one.costs for layer, one in found.items()}
    sizes = {layer: cost.size for layer, cost in worth.items()}
    assert {k: v.shape for k, v in worth.items()} == {
        k: tuple(c.weight.shape) for k, c in dense.convolutions().items()
    }
    numbers = allot({layer: one.errors for layer, one in found.items()}, sizes, 0.5)
    lost = []
    for keep in (
        magnitude.smallest(dense, 0.5),
        magnitude.smallest(dense, 0.5, worth=worth),
        magnitude.all_but(worth, numbers),
    ):
        sparse = twin(dense)
        magnitude.apply(sparse, keep)
        lost.append(np.mean([f.after for f in resolve(dense, sparse, batches)]))
    assert lost[2] <= lost[1] < lost[0]
    with pytest.raises(DatasetError, match="no batch"):
        saliencies(dense, [])


def errors_of(gram, weights):
    return gram.errors(weights, gram.offsets(weights))


def test_later_inputs_make_up_for_earlier_ones():
    """Against every choice there is: near the best, and far ahead of the nearest value for each weight."""
    values = torch.tensor([-1.0, 0.1, 0.8], dtype=torch.float64)
    every = torch.cartesian_prod(*[values] * 6).T[None]  # (1, 6, 729)
    ratios, near = [], []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        mix = torch.randn(6, 6, generator=g, dtype=torch.float64)
        features = torch.randn(1, 200, 6, generator=g, dtype=torch.float64) @ mix
        old = torch.randn(1, 6, 1, generator=g, dtype=torch.float64) * 0.7
        gram = Gram(1, 6, 1, "cpu")
        gram.add(features, features @ old + 3.0)
        found = compensated(gram, old, values, torch.ones_like(old, dtype=torch.bool))
        assert torch.isin(found, values).all()
        plain = values[(old[..., None] - values).abs().argmin(-1)]
        best = min(float(errors_of(gram, one)) for one in every.split(1, 2))
        ratios.append(float(errors_of(gram, found)) / best)
        near.append(float(errors_of(gram, plain)) / best)
    assert np.median(ratios) < 1.5 < 2 * np.median(ratios) < np.median(near)


def test_values_that_are_right_already_stay():
    g = torch.Generator().manual_seed(1)
    values = torch.tensor([-0.5, 0.25, 1.0], dtype=torch.float64)
    features = torch.randn(2, 300, 40, generator=g, dtype=torch.float64)  # two groups
    features[:, :, 7] = features[:, :, 8]
    features[:, :, 9] = 0.0
    support = torch.rand(2, 40, 5, generator=g) < 0.7
    old = torch.where(support, values[torch.randint(3, (2, 40, 5), generator=g)], 0.0)
    gram = Gram(2, 40, 5, "cpu")
    gram.add(features, features @ old - 1.0)
    assert torch.equal(compensated(gram, old, values, support), old)


def sparse_problem(seed, width=40, outputs=12, left=0.4):
    """Correlated inputs in two groups, and kernels: each filter has weights of its own left, one has none."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(2, width, width, generator=g, dtype=torch.float64)
    features = torch.randn(2, 400, width, generator=g, dtype=torch.float64) @ mix
    dense = torch.randn(2, width, outputs, generator=g, dtype=torch.float64)
    support = torch.rand(2, width, outputs, generator=g) < left
    support[0, :, 0] = False
    gram = Gram(2, width, outputs, "cpu")
    gram.add(features, features @ dense)
    return gram, torch.where(support, dense, 0.0), support


@pytest.mark.parametrize("squares", [1, 2000, 1 << 22])
def test_a_filter_s_own_matrix_says_what_one_of_only_its_inputs_says(monkeypatch, squares):
    monkeypatch.setattr(compensate, "SQUARES", squares)
    gram, old, support = sparse_problem(3)
    ff = gram.centred()[0]
    few = torch.ones_like(support[:, 0])
    few[1, 4] = False
    settled = torch.full_like(old, 7.0)
    compensate._apart(ff, old, support, few, torch.round, settled)
    assert (settled[1, :, 4] == 7).all() and (settled[0, :, 0] == 0).all()
    for group, filter_ in few.nonzero().tolist()[1:]:
        reads = support[group, :, filter_].nonzero()[:, 0]
        free = old[group, reads, filter_][None, :, None]
        lower = torch.linalg.cholesky(ff[group][reads[:, None], reads][None])
        alone = compensate._together(lower, free.clone(), torch.ones_like(free, dtype=bool), torch.round)
        assert torch.equal(settled[group, reads, filter_], alone[0, :, 0])
        closed = support[group, :, filter_].logical_not()
        assert (settled[group, closed, filter_] == 0).all()


def test_matrices_of_their_own_are_bounded_by_the_shared_one():
    few = compensate._worth_a_matrix
    assert few(torch.full((1, 64), 576), 576).all()  # little anyway
    wide = torch.full((1, 1024), 460)
    wide[0, 0] = 4000
    assert few(wide, 4608).tolist() == [[False] + [True] * 1023]
    assert not few(torch.full((1, 1024), 1450), 4608).any()  # minutes


@pytest.mark.parametrize("alone, ahead", [(True, 0.85), (False, 0.95)])
def test_values_of_sparse_filters_make_up_for_each_other_within_what_is_left(monkeypatch, alone, ahead):
    """Against the nearest values of the best weights within the support."""
    monkeypatch.setattr(
        compensate, "_worth_a_matrix", lambda number, _: torch.full_like(number, alone, dtype=torch.bool)
    )
    values, ratios = 0.6 * torch.arange(-7, 8, dtype=torch.float64), []
    for seed in range(10):
        gram, old, support = sparse_problem(seed)
        found = compensated(gram, old, values, support)
        assert torch.isin(found, values).all() and (found[~support] == 0).all()
        best = on_support(gram, old, support)
        plain = torch.where(support, values[(best[..., None] - values).abs().argmin(-1)], 0.0)
        least, one, other = (errors_of(gram, w).sum() for w in (best, found, plain))
        ratios.append(
            float((one - least) / (other - least))
        )  # of what the values cost beside the best weights
    assert np.median(ratios) < ahead


@pytest.mark.parametrize("seed", range(8))
def test_shared_values_chosen_again_come_no_further_from_what_was(seed):
    dense = random_network(seed)
    magnitude.apply(dense, magnitude.smallest(dense, 0.3))
    coarse = twin(dense)
    bits = {"conv": 2, "head": 3, "depthwise": 2}
    shared = share_all(coarse, bits)
    g = torch.Generator().manual_seed(seed)
    size = (dense.cfg.channels, dense.cfg.height, dense.cfg.width)
    batches = [(torch.rand(4, *size, generator=g), None) for _ in range(2)]
    fits = resolve(dense, coarse, batches, solve=onto_shared(dense, shared))
    assert all(f.after <= f.before + 1e-12 for f in fits) and any(f.after < 0.7 * f.before for f in fits)
    before = weights_bytes(coarse)
    for layer, conv in coarse.convolutions().items():
        found, was = conv.weight.detach().numpy(), dense.convolutions()[layer].weight.detach().numpy()
        assert np.isin(found, shared[layer].values).all() and (found[was == 0] == 0).all()
    share_all(coarse, bits)
    assert weights_bytes(coarse) == before, "sharing again changes nothing"


def test_values_are_the_means_of_what_they_hold():
    weights = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    values, codes = means(weights, 16)
    assert len(values) == 16 and (np.diff(values) > 0).all()
    for code, value in enumerate(values):
        assert value == pytest.approx(weights[codes == code].mean(), rel=1e-5)
    nearest = np.abs(weights[:, None] - values).argmin(1)
    assert (np.abs(weights - values[codes]) <= np.abs(weights - values[nearest]) + 1e-6).all()
    error = ((weights - values[codes]) ** 2).mean()
    assert error < 0.012, "of the optimum for a normal distribution at 4 bits (Max 1960: .0095), little more"


@pytest.mark.parametrize("bits", range(1, 9))
def test_shared_values(bits):
    rng = np.random.default_rng(bits)
    for zeros in (0.0, 0.7):
        weights = rng.normal(size=(8, 4, 3, 3)).astype(np.float32)
        weights[rng.random(weights.shape) < zeros] = 0
        shared = share(weights, bits)
        assert len(shared.values) <= 1 << bits and shared.codes.shape == weights.shape
        assert ((shared.weights() == 0) == (weights == 0)).all(), "zeros, and they alone, are 0"
        assert shared.codes.max() == len(shared.values) - 1
    few = np.array([0.5, 0.5, -1.0, 0.0], np.float32)
    assert (share(few, 2).weights() == few).all()


def test_weights_of_one_value_move_as_one():
    model = tiny()
    kernels = {layer: conv.weight.detach().clone().numpy() for layer, conv in model.convolutions().items()}
    for kernel in kernels.values():
        kernel[np.abs(kernel) < 0.02] = 0
    shared = {layer: share(kernel, 3) for layer, kernel in kernels.items()}
    tied = Tied(model, shared)
    run = make_run(model, ema=EMA(model, 0.9))
    run.constraints, run.progress.steps = [tied], 10
    run.model.zero_grad()
    layer, weight = next(iter(tied.weights.items()))
    weight.grad = torch.randn_like(weight)
    codes = torch.from_numpy(shared[layer].codes.astype(int))
    means = {c: weight.grad[codes == c].double().mean().item() for c in codes.unique().tolist()}
    tied.before_step(run.progress)
    for code, mean in means.items():
        wanted = 0.0 if code == 0 and shared[layer].values[0] == 0 else mean
        assert weight.grad[codes == code].numpy() == pytest.approx(wanted, abs=1e-7)
    before = weight.detach().clone()
    for _ in range(8):
        train_step(run, *copies(4))
    for network in (run.model, run.kept):
        found = tied.shared(network)
        for layer, conv in network.convolutions().items():
            assert np.array_equal(found[layer].weights(), conv.weight.detach().numpy()), "tied bit for bit"
            assert ((conv.weight == 0) == torch.from_numpy(kernels[layer] == 0)).all()
    assert not torch.equal(weight, before), "and they learn"
    again = Tied(tiny(), shared)
    again.load(tied.state())
    bad = tied.state()
    bad["codes"][str(layer)] = torch.full_like(bad["codes"][str(layer)], 200)
    with pytest.raises(ValueError, match="without a value"):
        again.load(bad)


def test_layers_lose_what_is_measured():
    """Against least squares for each filter alone, with the ridge of the solver."""
    g = torch.Generator().manual_seed(3)
    mix = torch.randn(10, 10, generator=g, dtype=torch.float64)
    features = torch.randn(2, 400, 10, generator=g, dtype=torch.float64) @ mix
    weights = torch.randn(2, 10, 3, generator=g, dtype=torch.float64)
    gram = Gram(2, 10, 3, "cpu")
    gram.add(features, features @ weights + 1.0)
    costs = (_factors(gram) * weights) ** 2
    found = errors(gram, weights, costs)
    assert len(found) == len(LEVELS)
    ff, fy, yy = gram.centred()
    order = costs.reshape(-1).argsort()
    for level, error in zip(LEVELS, found, strict=True):
        stays = torch.ones(60, dtype=torch.bool)
        stays[order[: int(level * 60 + 1e-9)]] = False
        stays = stays.view(2, 10, 3)
        lost = []
        for group in range(2):
            ridge = 1e-3 * ff[group].diagonal().mean()
            for f in range(3):
                s = stays[group, :, f]
                matrix = ff[group][s][:, s] + ridge * torch.eye(int(s.sum()), dtype=torch.float64)
                best = torch.linalg.solve(matrix, fy[group][s, f] + ridge * weights[group, s, f])
                error_of = yy[group, f] - 2 * best @ fy[group][s, f] + best @ ff[group][s][:, s] @ best
                lost.append(float(error_of / yy[group, f]))
        assert error == pytest.approx(np.mean(lost), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.77, 0.9, 0.999, 1.0])
def test_what_goes_is_shared_out_where_it_costs_least(ratio):
    """Against steps of one weight, each where the hull is flattest by then."""
    easy = tuple(0.1 * level**4 for level in LEVELS)
    hard = tuple(level**0.5 for level in LEVELS)  # concave: all or nothing
    curves, sizes = {3: easy, 5: tuple(level**2 for level in LEVELS), 9: hard}, {3: 700, 5: 300, 9: 40}
    found = allot(curves, sizes, ratio)
    assert sum(found.values()) == int(ratio * 1040 + 1e-9)
    assert all(0 <= found[layer] <= sizes[layer] for layer in sizes)
    if 0 < ratio < 1:

        def lost(layer, number):
            levels = [int(level * sizes[layer] + 1e-9) for level in LEVELS]
            return float(np.interp(number, [0, *levels, sizes[layer]], [0, *curves[layer], 1]))

        total = sum(lost(layer, found[layer]) for layer in (3, 5))
        for moved in (1, 5, 25):
            for a, b in ((3, 5), (5, 3)):
                if found[a] >= moved and found[b] + moved <= sizes[b]:
                    other = lost(a, found[a] - moved) + lost(b, found[b] + moved)
                    assert total <= other + 1e-9
    assert found[9] in (0, 40) or ratio == 0.999


def tailed():
    """Many small weights and a few far away; float32."""
    g = np.random.default_rng(0)
    return np.concatenate([g.normal(0, 0.05, 4000), g.normal(0, 2.0, 12)]).astype(np.float32)


def from_even(weights, count):
    """(values, code of each weight in ascending order) of k-means from an even start, by its definition."""
    ascending = np.sort(weights).astype(np.float64)
    even = np.linspace(ascending[0], ascending[-1], count)
    for _ in range(300):
        places = np.abs(ascending[:, None] - even).argmin(1)
        parts = [ascending[places == k] for k in range(count)]
        even = np.array([part.mean() if len(part) else old for part, old in zip(parts, even, strict=True)])
    return even, places


def test_a_few_large_weights_do_not_take_the_values_of_the_many():
    weights = tailed()
    values, codes = means(weights, 15)
    even, places = from_even(weights, 15)
    assert ((values[codes] - weights) ** 2).sum() < 0.6 * ((even[places] - np.sort(weights)) ** 2).sum()


def test_an_error_that_does_not_show_is_not_paid_for_with_bytes():
    weights = np.random.default_rng(0).laplace(0, 0.1, 5000).astype(np.float32)
    values, codes = means(weights, 255)
    even, places = from_even(weights, 255)
    assert np.allclose(np.unique(even[places]), values, atol=1e-6)
    assert ((values[codes] - weights) ** 2).sum() < 1e-3 * (weights**2).sum()
    densest = np.searchsorted(np.quantile(weights, np.arange(1, 255) / 255), weights)
    assert entropy_bits(codes, 255) < 0.9 * entropy_bits(densest, 255)
    few, places = from_even(weights, 15)
    values, codes = means(weights, 15)
    assert ((values[codes] - weights) ** 2).sum() <= ((few[places] - np.sort(weights)) ** 2).sum() + 1e-6
