"""What it costs to leave a weight out after the others of its filter have made up for it (optimal brain
surgeon, Hassibi and Stork 1993), as a share of what the filter says.

Of a convolution with unfolded inputs F and the curvature H = F'F + damping, leaving out weight w_i raises the
squared error of its filter by w_i^2 / [H^-1]_ii at the least. Divided by the filter's own variance this can
be compared across the filters of a layer. How many weights go from which layer is another question
(allotment.py), which the same curvature answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DatasetError
from ..network.darknet import Darknet
from ..network.patches import Gram
from ..network.walk import MEMORY, Maps, Walk
from . import allotment
from .compensate import damped
from .resolve import POSITIONS, by_input, gram_of, take

CONSTANT = 1e-12  # variance over mean square: rounding


@dataclass(frozen=True)
class Saliency:
    """What the weights of a convolution are worth.

    Attributes:
        costs: of each weight, float32 of the kernel's shape; 0 for what is 0.
        factors: the same shape: a weight w would cost (factor w)^2.
        errors: of the layer, once the cheapest have gone, at each of allotment.LEVELS.
    """

    costs: np.ndarray
    factors: np.ndarray
    errors: tuple[float, ...]


def saliencies(
    model: Darknet,
    batches: Iterable,
    *,
    positions: int = POSITIONS,
    memory: int = MEMORY,
    seed: int = 0,
    progress: Callable[..., Iterable] = lambda layers, **_: layers,
) -> dict[int, Saliency]:
    """Layer -> what its weights are worth.

    Args:
        batches: yields (images (B, C, H, W), uint8 or float in 0..1; targets, which are not looked at).

    Raises:
        DatasetError: no pictures, or pictures that give numbers which are not finite.
    """
    pictures = [images for images, _ in batches]
    if not sum(map(len, pictures)):
        raise DatasetError("saliency", "no batch of training pictures", "one or more")
    walk, found = Walk(model.eval(), pictures, memory), {}
    with torch.no_grad():
        for layer in progress(list(model.convolutions()), desc="weighing"):
            conv, source = model.convolutions()[layer], model.graph.nodes[layer].inputs[0]
            gram = gram_of(conv)
            for number in range(len(pictures)):

                def watch(maps: Maps, made: Tensor, number=number) -> None:
                    take(gram, conv, maps[source], made, positions, (seed, layer, number))  # noqa: B023

                walk.through(number, layer, watch)
            weights = by_input(conv.weight, conv.groups)
            factors = _factors(gram)
            costs = (factors * weights) ** 2
            if not torch.isfinite(costs).all():
                raise DatasetError(
                    "saliency",
                    f"layer {layer} makes numbers that are not finite",
                    "finite numbers",
                    "look at the weights and the pictures",
                )
            kernels = (
                t.transpose(1, 2).reshape(conv.weight.shape).float().cpu().numpy() for t in (costs, factors)
            )
            found[layer] = Saliency(*kernels, allotment.errors(gram, weights, costs))
    return found


def _factors(gram: Gram) -> Tensor:
    """(groups, width, outputs): by what a weight is multiplied to give the root of what leaving it out costs,
    as a share of its filter's variance.
    """
    ff, _, yy = gram.centred()
    damped(gram, ff)
    free = torch.cholesky_inverse(torch.linalg.cholesky(ff)).diagonal(dim1=1, dim2=2)
    says = yy > CONSTANT * gram.yy  # a filter that makes the same everywhere loses nothing
    share = torch.where(says, yy, 1.0)[:, None] * free[..., None]
    return torch.where(says[:, None], share.rsqrt(), 0.0)
