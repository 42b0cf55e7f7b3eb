"""Scores: how much a channel class matters, as a callable (model, channels, classes) -> one number a class.

Only the order of the scores counts: the plan cuts the smallest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..channels import Channels
from ..errors import WeightsError
from .parts import batch_norm

NEAR_ZERO = 0.02  # of the 99th percentile: below it a gamma counts as pressed to zero
NEVER_SPARSIFIED = 0.05  # a share of gammas near zero below which no sparsity training shows


def gammas(model, channels: Channels) -> dict[int, np.ndarray]:
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
            raise WeightsError(f"layer {layer} [convolutional]", f"gamma of channel {bad} is {values[bad]}", "finite numbers",
                               "take an earlier checkpoint; the training that made this one diverged")
        found[layer] = values
    return found


def gamma(model, channels: Channels, classes: np.ndarray) -> np.ndarray:
    """Mean |gamma| over the channels that make a class (network slimming, Liu 2017, arXiv 1708.06519).

    Args:
        classes: class ids (n,).

    Returns:
        float64 (n,).

    Raises:
        WeightsError: a gamma that is no finite number.
    """
    values = gammas(model, channels)
    total, members = np.zeros(channels.count), np.zeros(channels.count)
    for layer, per_channel in values.items():
        np.add.at(total, channels.ids[layer], per_channel)
        np.add.at(members, channels.ids[layer], 1)
    return total[classes] / np.maximum(members[classes], 1)


SCORES: dict[str, Callable[[object, Channels, np.ndarray], np.ndarray]] = {"gamma": gamma}


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
