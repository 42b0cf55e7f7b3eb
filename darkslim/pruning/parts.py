"""The pieces of a Darknet model that pruning reads and writes, by layer number."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def convolution(model, layer: int) -> nn.Conv2d:
    """The convolution of a convolutional layer."""
    return getattr(model.module_list[layer], f"conv_{layer}")


def batch_norm(model, layer: int) -> nn.BatchNorm2d | None:
    """The batch normalization of a convolutional layer; None if it has none."""
    return getattr(model.module_list[layer], f"batch_norm_{layer}", None)


def offset(model, layer: int) -> torch.Tensor:
    """What a channel holds before its activation when nothing else comes through: the betas, or without batch
    norm the biases.
    """
    bn = batch_norm(model, layer)
    return convolution(model, layer).bias if bn is None else bn.bias


def view(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor on the CPU as they are stored, without a copy where that can be; not to be
    written to.
    """
    return tensor.detach().cpu().numpy()


def array(tensor: torch.Tensor) -> np.ndarray:
    """A float64 copy, in which all arithmetic on weights is done."""
    return tensor.detach().cpu().double().numpy().copy()


def put(tensor: torch.Tensor, values: np.ndarray) -> None:
    """Writes float64 values into a parameter or buffer of the same shape."""
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(values)).reshape(tensor.shape))
