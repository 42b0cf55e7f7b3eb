"""Weights moved onto a few values, one input after another; what a step gets wrong is made up for by the
inputs that are still free (optimal brain surgeon, Hassibi 1993; for layers with shared inputs and in one
sweep: Frantar 2022, arXiv 2208.11580, and 2023, arXiv 2210.17323).

Of a convolution with unfolded inputs F and wanted outputs Y, both about their means, the error

    |F W - Y|^2 + damping |W - W_0|^2

is a quadratic with the curvature H = F'F + damping. Where the weight of input i is put e beside its best
value, the best that the free ones can do is to move by -e [H^-1]_ji / [H^-1]_ii, with the inverse of what is
free; all of these inverses are rows of one Cholesky factor of H^-1. Inputs that say most go first.

A filter with few weights left has a matrix of its own, of the inputs that it still reads. The others share
one of all inputs: what it would make up for at an input that a filter does not read is passed on to the next
ones. Both start from the best weights within what is read, where only the values' own error is left to make
up for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..network.darknet import Darknet
from ..network.packed import Shared
from ..network.patches import Gram
from .resolve import SQUARES, Solver, by_input, on_support

DAMPING = 0.01  # of the mean of the diagonal of F'F
FACTORED = 4 / 3  # multiply-adds that two factors and an inverse take, over the cube of the width
TIMES, LITTLE = 3, 1e11
BLOCK = 128  # inputs that are settled before the rest hears of it


def compensated(gram: Gram, old: Tensor, values: Tensor, support: Tensor) -> Tensor:
    """Weights out of `values`, near to those that make Y of F, and 0 outside of `support`.

    Args:
        gram: of what the convolution reads and what it has to make.
        old: (groups, width, outputs) float64, the weights before; what no picture decides stays as it was.
        values: (k,) float64 ascending, those that a weight may have.
        support: bool as `old`.

    Returns:
        (groups, width, outputs) float64.
    """
    ff, fy, _ = gram.centred()
    damping = damped(gram, ff)
    order = ff.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    ordered = order[:, :, None].expand_as(old)
    ff = ff.gather(1, order[:, :, None].expand_as(ff)).gather(2, order[:, None, :].expand_as(ff))
    free, may = old.gather(1, ordered), support.gather(1, ordered)
    middles = (values[1:] + values[:-1]) / 2
    whole = bool(support.all())
    few = _worth_a_matrix(support.sum(1), ff.shape[1]) & (not whole)
    lower = None if few.all() else torch.linalg.cholesky(ff)
    if whole:
        free += torch.cholesky_solve(fy.gather(1, ordered) + damping[..., None] * free - ff @ free, lower)
    else:
        free = on_support(gram, old, support).gather(1, ordered)

    def nearest(best: Tensor) -> Tensor:
        return values[torch.bucketize(best.contiguous(), middles)]

    settled = torch.zeros_like(free) if lower is None else _together(lower, free.clone(), may, nearest)
    _apart(ff, free, may, few, nearest, settled)
    return torch.empty_like(settled).scatter_(1, ordered, settled)


def _worth_a_matrix(number: Tensor, width: int) -> Tensor:
    """Which filters get one of their own: those with so few weights that all of them cost no more than TIMES
    the shared one and the moves by it, or than what is LITTLE anyway.

    Args:
        number: (groups, outputs) of weights that each filter has left.
    """
    if number.device.type != "cpu":  # many small matrices are slower there than a few large ones
        return torch.zeros_like(number, dtype=torch.bool)
    shared = len(number) * (FACTORED * width**3 + width**2 * number.shape[1])
    return FACTORED * number.double() ** 3 * number.numel() <= max(TIMES * shared, LITTLE)


def _together(lower: Tensor, free: Tensor, may: Tensor, nearest) -> Tensor:
    """All filters of a group at once.

    Args:
        lower: the Cholesky factor of H. free: the best weights (groups, width, outputs), used up.
    """
    factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    groups, width, outputs = free.shape
    settled = torch.empty_like(free)
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        missed = free.new_empty(groups, end - start, outputs)
        for i in range(start, end):
            best = free[:, i]
            settled[:, i] = torch.where(may[:, i], nearest(best), 0.0)
            missed[:, i - start] = (best - settled[:, i]) / factor[:, i, i, None]
            free[:, i + 1 : end] -= factor[:, i, i + 1 : end, None] * missed[:, i - start, None]
        free[:, end:] -= factor[:, start:end, end:].mT @ missed
    return settled


def _apart(ff: Tensor, free: Tensor, may: Tensor, few: Tensor, nearest, settled: Tensor) -> None:
    """Those filters that `few` (groups, outputs) names, by a matrix each; into `settled`."""
    places = few.nonzero()
    counts = may.sum(1)[few]
    by_size = counts.argsort(stable=True)
    places, counts = places[by_size], counts[by_size]
    sizes = counts.tolist()
    start = 0
    while start < len(sizes):  # as many at once as SQUARES numbers hold, those of like size together
        end = start + 1
        while end < len(sizes) and (end + 1 - start) * sizes[end] ** 2 <= SQUARES:
            end += 1
        group, filter_ = places[start:end].unbind(1)
        size = sizes[end - 1]
        reads = may[group, :, filter_].float().argsort(dim=1, descending=True, stable=True)[:, :size]
        real = torch.arange(size, device=ff.device) < counts[start:end, None]
        square = ff[group[:, None, None], reads[:, :, None], reads[:, None, :]]
        square = torch.where(real[:, :, None] & real[:, None, :], square, 0.0)
        square.diagonal(dim1=1, dim2=2)[~real] = 1.0
        factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(square)), upper=True)
        best = free[group[:, None], reads, filter_[:, None]]
        for i in range(size):
            now = torch.where(real[:, i], nearest(best[:, i]), best[:, i])
            missed = (best[:, i] - now) / factor[:, i, i]
            best[:, i] = now
            best[:, i + 1 :] -= factor[:, i, i + 1 :] * missed[:, None]
        settled[group, :, filter_] = 0.0
        settled[group[:, None], reads, filter_[:, None]] = torch.where(real, best, 0.0)
        start = end


def damped(gram: Gram, ff: Tensor) -> Tensor:
    """Adds a little to the diagonal of F'F, in place, so that it has an inverse; (groups, 1): how much."""
    diagonal = ff.diagonal(dim1=1, dim2=2)
    damping = DAMPING * diagonal.mean(1, keepdim=True) + gram.rounding()
    diagonal.add_(damping)
    return damping


def onto_shared(dense: Darknet, shared: Mapping[int, Shared]) -> Solver:
    """Keeps the values of each layer and chooses anew which weight has which, for `resolve`: what was 0 stays
    0.

    Args:
        dense: the network as it was before its kernels became shared values.
    """

    def solve(gram: Gram, weights: Tensor, layer: int) -> Tensor:
        conv = dense.convolutions()[layer]
        old = by_input(conv.weight.detach(), conv.groups)
        values = torch.from_numpy(shared[layer].values).to(old).sort().values
        return compensated(gram, old, values, old != 0)

    return solve
