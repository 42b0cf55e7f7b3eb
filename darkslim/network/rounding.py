"""What 8 bits do to a network: kernels in steps by output channel, feature maps in steps by map.

Kernels keep to 7 bits: on processors without VNNI the products of 8 by 8 bits, added in pairs, would not fit
into 16. A batch norm multiplies each output channel by one number, so that a kernel rounds alike before and
after it is folded in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .darknet import Darknet

LEVELS = 63  # of a kernel to each side of zero
STEPS = 255  # of a feature map, from its least to its largest value


def head_layers(model: Darknet) -> list[int]:
    """The convolutions that make boxes and scores: an error there is not averaged by anything after it."""
    nodes = model.graph.nodes
    return [
        source
        for head in model.heads
        for source in nodes[head.index].inputs
        if nodes[source].type == "convolutional"
    ]


def rounded(kernel: Tensor) -> Tensor:
    """A kernel (filters, C / groups, k, k) as it is once it has LEVELS steps to each side of zero."""
    most = kernel.flatten(1).abs().amax(1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return (kernel * LEVELS / most).round() * most / LEVELS


def stepped(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A feature map in STEPS steps from `low` <= 0 to `high` >= 0, zero among them; what lies beyond is
    clipped.
    """
    step = (high - low).clamp(min=1e-12) / STEPS
    lowest = (low / step).round()
    return (x / step).round().clamp(lowest, lowest + STEPS) * step


def spread(x: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value of a feature map, zero among them."""
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.minimum(x.min(), zero), torch.maximum(x.max(), zero)
