"""Scores: how much every channel of a convolution matters. Only the order counts: the plan cuts the smallest.

A score is a function (model, channels, context) -> {convolution: float64 (filters,)}; `SCORES` has a row for
each. What becomes of the several channels of one class is the strategy's business
(darkslim/pruning/policy.py).

Norms of kernels depend on how many weights a kernel has, gammas do not. So that a ranking over the whole
network compares like with like, scores of kernels are divided by the mean of their layer (of their group of
tied layers for `depgraph`), as is usual; `lamp` brings its own normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..base.errors import DatasetError, RequestError, WeightsError
from ..network.channels import Channels
from ..network.twins import twin
from ..training.loss import DetectionLoss
from .parts import array, batch_norm, convolution
from .repair_error import repair_error

NEAR_ZERO = 0.02  # of the 99th percentile: below it a gamma counts as pressed to zero
LOOKING = ("taylor", "repair")  # scores that need training pictures
NEVER_SPARSIFIED = 0.05  # a share of gammas near zero below which no sparsity training shows

Scores = dict[int, np.ndarray]


@dataclass(frozen=True)
class Context:
    """What some scores need beside the network.

    Attributes:
        seed: of `random`.
        device: where scores that look at pictures are worked out.
        known: keeps the scores of a network from one plan to the next; whoever gives it changes no weights.
        batches: for `taylor` and `repair`: yields (images (B, C, H, W), uint8 or float in 0..1; targets (N,
            6): image index, class, centre x, centre y, width, height relative to the input).
    """

    seed: int = 0
    batches: Iterable | None = None
    device: str | torch.device = "cpu"
    known: WeakKeyDictionary | None = None


def gammas(model, channels: Channels) -> Scores:
    """Convolution -> |gamma| (filters,) float64, for every convolution with batch normalization.

    Raises:
        WeightsError: a gamma that is no finite number, with its layer.
    """
    found = {}
    for layer in channels.convolutions:
        bn = batch_norm(model, layer)
        if bn is None:
            continue
        values = np.abs(bn.weight.detach().cpu().double().numpy())
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise WeightsError(
                f"layer {layer} [convolutional]",
                f"gamma of channel {bad} is {values[bad]}",
                "finite numbers",
                "take an earlier checkpoint; the training that made this one diverged",
            )
        found[layer] = values
    return found


def gamma(model, channels: Channels, context: Context) -> Scores:
    """|gamma| (network slimming, Liu 2017, arXiv 1708.06519)."""
    return gammas(model, channels)


def l1(model, channels: Channels, context: Context) -> Scores:
    """L1 norm of the filter (Li 2017, arXiv 1608.08710), over the mean of its layer."""
    return {layer: _relative(np.abs(kernels).sum(axis=1)) for layer, kernels in _kernels(model, channels)}


def l2(model, channels: Channels, context: Context) -> Scores:
    """L2 norm of the filter, over the mean of its layer."""
    return {
        layer: _relative(np.sqrt((kernels**2).sum(axis=1))) for layer, kernels in _kernels(model, channels)
    }


def fpgm(model, channels: Channels, context: Context) -> Scores:
    """Sum of distances to all other filters of the layer (geometric median, He 2019, arXiv 1811.00250), over
    the layer's mean.

    A filter near the geometric median says least that the others do not say.
    """
    found = {}
    for layer, kernels in _kernels(model, channels):
        rows = torch.from_numpy(kernels)
        found[layer] = _relative(torch.cdist(rows, rows).sum(dim=1).numpy())
    return found


def lamp(model, channels: Channels, context: Context) -> Scores:
    """w_i^2 / sum of w_j^2 over i and all j after it in ascending order (LAMP, Lee 2021, arXiv 2010.07611), w
    the filter's L2 norm.

    The strongest filter of each layer scores 1, so no layer is emptied before the others are down to one.
    """
    found = {}
    for layer, kernels in _kernels(model, channels):
        squares = (kernels**2).sum(axis=1)
        order = np.argsort(squares, kind="stable")
        rest = np.cumsum(squares[order][::-1])[::-1]
        found[layer] = np.empty(len(squares))
        found[layer][order] = squares[order] / np.where(rest > 0, rest, 1.0)
    return found


def depgraph(model, channels: Channels, context: Context) -> Scores:
    """Group norm (DepGraph, Fang 2023, arXiv 2301.12900), over the mean of the group of tied layers.

    Squared norms of the filters that make a class, of their gammas, and of the kernels that read it. What
    reads a class is shared out equally among the channels that make it, so that their mean is the group's
    norm up to the number of members, which the division by the group's mean removes.
    """
    read = np.zeros(channels.count)
    for layer in channels.convolutions:
        node = channels.graph.nodes[layer]
        groups, width = node.opts["groups"], node.in_shapes[0][0]
        if (
            groups == 1 or groups < width
        ):  # a depthwise filter belongs to the class that it reads: as its maker it is counted already
            squares = (
                (array(convolution(model, layer).weight) ** 2)
                .sum(axis=(2, 3))
                .reshape(groups, -1, width // groups)
            )
            np.add.at(read, channels.of(node.inputs[0]), squares.sum(axis=1).reshape(-1))
    found, makers = {}, np.array([len(channels.producers.get(c, ())) or 1 for c in range(channels.count)])
    values = gammas(model, channels)
    for layer, kernels in _kernels(model, channels):
        ids = channels.ids[layer]
        found[layer] = (kernels**2).sum(axis=1) + values.get(layer, 0.0) ** 2 + read[ids] / makers[ids]
    groups: dict[tuple[int, ...], list[int]] = {}
    for c, made in channels.producers.items():
        groups.setdefault(tuple(layer for layer, _ in made), []).append(c)
    scale = np.ones(channels.count)
    for classes in groups.values():
        members = [found[layer][channel] for c in classes for layer, channel in channels.producers[c]]
        scale[classes] = np.mean(members) or 1.0
    return {layer: score / scale[channels.ids[layer]] for layer, score in found.items()}


def readers(model, channels: Channels, context: Context) -> Scores:
    """What the convolutions that read a channel make of it: the norm of their kernels for it, over the mean
    of such a convolution's channels; the mean over its readers. 0 where every reader's kernels are zero,
    which is what a closed gate leaves (network/gates.py).

    Depthwise convolutions are no readers: what they read and what they make is one class.
    """
    total, count = np.zeros(channels.count), np.zeros(channels.count)
    for layer, kernels in _kernels(model, channels):
        node = channels.graph.nodes[layer]
        groups, width = node.opts["groups"], node.in_shapes[0][0]
        if groups > 1 and groups == width:
            continue
        squares = (kernels**2).reshape(groups, -1, width // groups, node.opts["size"] ** 2).sum(axis=(1, 3))
        ids = channels.of(node.inputs[0])
        np.add.at(total, ids, _relative(np.sqrt(squares.reshape(-1))))
        np.add.at(count, ids, 1)
    found = total / np.maximum(count, 1)
    return {layer: found[channels.ids[layer]] for layer in channels.convolutions}


def random(model, channels: Channels, context: Context) -> Scores:
    """Uniform in 0..1, by the seed: the control that every other score has to beat."""
    draw = np.random.default_rng(context.seed)
    return {layer: draw.random(len(channels.ids[layer])) for layer in channels.convolutions}


def taylor(model, channels: Channels, context: Context) -> Scores:
    """|gamma g_gamma + beta g_beta|, mean over batches (first-order Taylor on the norm, Molchanov 2019, arXiv
    1906.10771).

    The gradients are those of the detection loss with running statistics, of a copy: `model` stays as it is.

    Raises:
        RequestError: no batches were given.
        DatasetError: the batches hold no picture, or the loss is no finite number.
    """
    batches = _batches(context, "taylor")
    probe = twin(model, context.device).eval()
    loss_of, count = DetectionLoss(probe.heads), 0
    total = {layer: np.zeros(bn.num_features) for layer, bn in probe.batch_norms().items()}
    for images, targets in batches:
        images, targets = images.to(context.device), targets.to(context.device)
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        probe.zero_grad()
        loss, _ = loss_of(probe.raw_heads(images), targets, tuple(images.shape[2:]))
        if not torch.isfinite(loss):
            raise DatasetError(
                "score taylor",
                f"the loss of batch {count} is {loss.item()}",
                "a finite number",
                "look at the weights and the labels",
            )
        loss.backward()
        count += 1
        for layer, bn in probe.batch_norms().items():
            if bn.weight.grad is not None:
                total[layer] += np.abs(
                    array(bn.weight) * array(bn.weight.grad) + array(bn.bias) * array(bn.bias.grad)
                )
    if not count:
        raise DatasetError("score taylor", "no batch of training pictures", "at least one")
    return {layer: values / count for layer, values in total.items()}


def repair(model, channels: Channels, context: Context) -> Scores:
    """The error that is left after the best linear repair, for each multiply-add saved (repair_error.py)."""
    return repair_error(model, channels, _batches(context, "repair"), context.device)


def _batches(context: Context, name: str) -> Iterable:
    if context.batches is None:
        raise RequestError(
            "score",
            f"{name!r} without training pictures",
            "batches with truths",
            "name a data set, or take a score that needs none",
        )
    return context.batches


def scores(name: str, model, channels: Channels, context: Context) -> Scores:
    """The scores of every convolution by the name of a score, out of what is known where that is kept."""
    if context.known is None:
        return SCORES[name](model, channels, context)
    known = context.known.setdefault(model, {})
    if name not in known:
        known[name] = SCORES[name](model, channels, context)
    return known[name]


SCORES: dict[str, Callable[[object, Channels, Context], Scores]] = {
    "gamma": gamma,
    "l1": l1,
    "l2": l2,
    "depgraph": depgraph,
    "taylor": taylor,
    "repair": repair,
    "fpgm": fpgm,
    "lamp": lamp,
    "readers": readers,
    "random": random,
}


def _kernels(model, channels: Channels):
    """(convolution, float64 (filters, weights of one)) of every convolution.

    Raises:
        WeightsError: a weight that is no finite number, with its layer.
    """
    for layer in channels.convolutions:
        kernels = array(convolution(model, layer).weight)
        kernels = kernels.reshape(len(kernels), -1)
        if not np.isfinite(kernels).all():
            raise WeightsError(
                f"layer {layer} [convolutional]",
                "a kernel holds numbers that are not finite",
                "finite numbers",
                "take an earlier checkpoint; the training that made this one diverged",
            )
        yield layer, kernels


def _relative(values: np.ndarray) -> np.ndarray:
    return values / (values.mean() or 1.0)


@dataclass(frozen=True)
class Sparsity:
    """How the gammas of the prunable classes are distributed.

    Attributes:
        quantiles: {percent: |gamma|} at 0, 10, 25, 50, 75, 90 and 100 percent.
        near_zero: the share of gammas below `NEAR_ZERO` of their 99th percentile: the ratio that is safe now,
            because a channel that weak next to its peers adds little but its constant, and that is folded.
        histogram: (left edge, right edge, count) of ten bins.
    """

    quantiles: dict[int, float]
    near_zero: float
    histogram: tuple[tuple[float, float, int], ...]

    @property
    def trained(self) -> bool:
        """Whether sparsity training shows: at least 5% of the gammas lie near zero."""
        return self.near_zero >= NEVER_SPARSIFIED


def sparsity(scores: np.ndarray) -> Sparsity:
    """The distribution of `gamma` scores (n,), n > 0.

    A network that was trained without a penalty keeps nearly all gammas within a factor of ten of each
    other; one that was trained with it has a heap at zero beside a few that stay near one. Comparing with
    the 99th percentile, not the median, still works when four fifths lie in the heap.
    """
    marks = (0, 10, 25, 50, 75, 90, 100)
    quantiles = {m: float(v) for m, v in zip(marks, np.percentile(scores, marks), strict=True)}
    high = float(np.percentile(scores, 99))
    near = float((scores < NEAR_ZERO * high).mean()) if high > 0 else 1.0
    counts, edges = np.histogram(scores, bins=10)
    bins = tuple((float(a), float(b), int(c)) for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True))
    return Sparsity(quantiles, near, bins)
