"""What it costs to leave a weight out after the others of its filter have made up for it (optimal brain
surgeon, Hassibi and Stork 1993), as a share of what the filter says.

Of a convolution with unfolded inputs F and the curvature H = F'F + damping, leaving out weight w_i raises the
squared error of its filter by w_i^2 / [H^-1]_ii at the least. Divided by the filter's own variance this can
be compared across filters, and divided by the number of filters across layers: the sum over what goes is then
about the mean error of the layers, each as important as the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DatasetError
from ..network.darknet import Darknet
from ..network.patches import Gram
from ..network.walk import MEMORY, Maps, Walk
from .compensate import damped
from .resolve import POSITIONS, by_input, gram_of, take

CONSTANT = 1e-12  # variance over mean square: rounding


def saliencies(
    model: Darknet,
    batches: Iterable,
    *,
    positions: int = POSITIONS,
    memory: int = MEMORY,
    seed: int = 0,
    progress: Callable[..., Iterable] = lambda layers, **_: layers,
) -> dict[int, np.ndarray]:
    """Layer -> the cost of each weight, float32 of the kernels' shape; 0 for what is 0.

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
            costs = _costs(gram, by_input(conv.weight, conv.groups)) / conv.out_channels
            if not torch.isfinite(costs).all():
                raise DatasetError(
                    "saliency",
                    f"layer {layer} makes numbers that are not finite",
                    "finite numbers",
                    "look at the weights and the pictures",
                )
            found[layer] = costs.transpose(1, 2).reshape(conv.weight.shape).float().cpu().numpy()
    return found


def _costs(gram: Gram, weights: Tensor) -> Tensor:
    """(groups, width, outputs): what leaving out each of `weights` costs, as a share of its filter's
    variance.
    """
    ff, _, yy = gram.centred()
    damped(gram, ff)
    free = torch.cholesky_inverse(torch.linalg.cholesky(ff)).diagonal(dim1=1, dim2=2)
    says = yy > CONSTANT * gram.yy  # a filter that makes the same everywhere loses nothing
    return torch.where(says[:, None], weights**2 / free[..., None] / torch.where(says, yy, 1.0)[:, None], 0.0)
