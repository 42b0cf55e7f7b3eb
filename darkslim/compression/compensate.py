"""Weights moved onto a few values, one input after another; what a step gets wrong is made up for by the
inputs that are still free (optimal brain surgeon, Hassibi 1993; for layers with shared inputs and in one
sweep: Frantar 2022, arXiv 2208.11580, and 2023, arXiv 2210.17323).

Of a convolution with unfolded inputs F and wanted outputs Y, both about their means, the error

    |F W - Y|^2 + damping |W - W_0|^2

is a quadratic with the curvature H = F'F + damping. Where the weight of input i is put e beside its best
value, the best that the free ones can do is to move by -e [H^-1]_ji / [H^-1]_ii, with the inverse of what is
free; all of these inverses are rows of one Cholesky factor of H^-1. Inputs that say most go first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..network.darknet import Darknet
from ..network.packed import Shared
from ..network.patches import Gram
from .resolve import Solver, by_input

DAMPING = 0.01  # of the mean of the diagonal of F'F
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
    groups, width, outputs = old.shape
    ff = ff.gather(1, order[:, :, None].expand(-1, -1, width)).gather(
        2, order[:, None, :].expand(-1, width, -1)
    )
    by_input = order[:, :, None].expand(-1, -1, outputs)
    free, may = old.gather(1, by_input), support.gather(1, by_input)
    lower = torch.linalg.cholesky(ff)
    free += torch.cholesky_solve(fy.gather(1, by_input) + damping[..., None] * free - ff @ free, lower)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    middles = (values[1:] + values[:-1]) / 2
    settled = torch.empty_like(free)
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        missed = free.new_empty(groups, end - start, outputs)
        for i in range(start, end):
            best = free[:, i]
            settled[:, i] = torch.where(may[:, i], values[torch.bucketize(best.contiguous(), middles)], 0.0)
            missed[:, i - start] = (best - settled[:, i]) / factor[:, i, i, None]
            free[:, i + 1 : end] -= factor[:, i, i + 1 : end, None] * missed[:, i - start, None]
        free[:, end:] -= factor[:, start:end, end:].mT @ missed
    return torch.empty_like(settled).scatter_(1, by_input, settled)


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
