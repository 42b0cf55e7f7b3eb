"""Weight sharing (deep compression, Han 2016, arXiv 1510.00149): the weights of a layer become a few values.

One-dimensional k-means: values move to the means of the weights nearest to them (Lloyd 1982) until none
moves. Where they end depends on where they start. Evenly between the least and the largest, as in the paper,
leaves many of them to a few large weights; as dense as the third root of the weights' density is best for
many values (Panter and Dite 1951); evenly over the weights serves large layers with a few far away. Each is
tried, and what leaves the least squared error is taken; but where more than one leaves so little that it does
not show, the one whose codes have the least entropy: with many values an even start makes files a fifth
smaller. On sorted weights with running sums a round costs a search for each value, not a look at each weight.
Weights that are 0 stay 0: they have a value of their own, which does not move.
"""

from __future__ import annotations

import numpy as np

from ..base.errors import RequestError
from ..network.entropy import bits_of
from ..network.packed import Shared

ROUNDS = 300
LITTLE = 1e-3  # squared error over the weights' squares that does not show
SAMPLES = 4096  # order statistics that a density is taken from


def share(weights: np.ndarray, bits: int) -> Shared:
    """The weights of one layer as at most 2^bits values, 0 among them where any weight is.

    Args:
        weights: float32, any shape.
        bits: 1 to 8.

    Raises:
        RequestError: `bits` out of range.
    """
    if not 1 <= bits <= 8:
        raise RequestError("bits", str(bits), "1 to 8")
    flat = np.ascontiguousarray(weights, np.float32).reshape(-1)
    zero = flat == 0
    rest = flat[~zero]
    room = (1 << bits) - bool(zero.any())
    values, codes = means(rest, room)
    if zero.any():
        values, codes = np.concatenate([np.zeros(1, np.float32), values]), codes + 1
    whole = np.zeros(len(flat), np.uint8)
    whole[~zero] = codes
    return Shared(values, whole.reshape(weights.shape))


def means(weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(values float32 (k,) ascending, code of each weight), k at most `count`, values without weights left
    out.

    Args:
        weights: float32 (n,), none of them 0.
    """
    order = np.argsort(weights, kind="stable")
    ascending = weights[order].astype(np.float64)
    if not len(weights):
        return np.zeros(0, np.float32), np.zeros(0, np.int64)
    distinct = np.unique(weights)
    if len(distinct) <= count:
        return distinct, np.searchsorted(distinct, weights)
    starts = (np.linspace(ascending[0], ascending[-1], count), *_starts(ascending, count))
    ends = [_lloyd(ascending, start) for start in starts]
    errors = [float(((ascending - np.repeat(values, held)) ** 2).sum()) for values, held in ends]
    largest = LITTLE * float((ascending**2).sum())
    bits = [bits_of(held) if e < largest else np.inf for (_, held), e in zip(ends, errors, strict=True)]
    values, held = min(zip(bits, errors, ends, strict=True), key=lambda found: found[:2])[2]
    codes = np.empty(len(weights), np.int64)
    codes[order] = np.repeat(np.cumsum(held > 0) - 1, held)
    found = values[held > 0].astype(np.float32)
    return np.where(found == 0, np.float32(1e-30), found), codes


def _starts(ascending: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where values may start: by the third root of the density, and by the weights' number."""
    share = (np.arange(count) + 0.5) / count
    few = ascending[np.linspace(0, len(ascending) - 1, min(len(ascending), SAMPLES)).round().astype(int)]
    places = np.arange(len(few) - 1)
    reach = max(1, len(few) // (8 * count))  # neighbours that a density is the mean of
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(few) - 1)
    density = (high - low) / np.maximum(few[high] - few[low], 1e-30)
    passed = np.concatenate([[0.0], np.cumsum(np.cbrt(density) * np.diff(few))])
    return np.interp(share * passed[-1], passed, few), np.quantile(ascending, share)


def _lloyd(ascending: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values, weights that each has) where no value moves any more."""
    sums, borders = np.concatenate([[0.0], np.cumsum(ascending)]), None
    for _ in range(ROUNDS):
        middles = (values[1:] + values[:-1]) / 2
        now = np.concatenate([[0], np.searchsorted(ascending, middles), [len(ascending)]])
        if borders is not None and np.array_equal(now, borders):
            break
        borders, held = now, np.diff(now)
        values = np.where(held > 0, np.diff(sums[now]) / np.maximum(held, 1), values)  # of nothing: it stays
    return values, np.diff(borders)
