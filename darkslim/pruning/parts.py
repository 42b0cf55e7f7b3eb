"""The pieces of a Darknet model that pruning reads and writes, by layer number."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

from ..network.cfg import Cfg
from ..network.darknet import Darknet


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


def empty(cfg: Cfg, device="cpu") -> Darknet:
    """A network whose parameters are still to be written, made without drawing random numbers for them."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever read the cfg has been told
        return Darknet(cfg).to_empty(device=device)


def twin(model, device=None, dtype: torch.dtype | None = None) -> Darknet:
    """An independent copy with its own cfg, in the same mode; optionally on another device or in another
    precision.
    """
    first = next(model.parameters())
    copy = empty(model.cfg.copy(), device or first.device).to(dtype or first.dtype)
    copy.load_state_dict(model.state_dict())
    copy.seen = model.seen
    return copy.train(model.training)
