"""The arrays of a network in the order of a `.weights` file, and what they may hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..base.errors import WeightsError
from .darknet import Darknet

TINY = float(np.finfo(np.float32).tiny)  # what is smaller than this is zero, with either sign


def in_order(model: Darknet, upto: int | None = None) -> list[tuple[int, str, Tensor]]:
    """(layer, name, tensor) in the order of the file, for the layers before `upto`."""
    found = []
    for node in model.graph.nodes[:upto]:
        module = model.module_list[node.index]
        if node.type == "convolutional":
            conv = getattr(module, f"conv_{node.index}")
            if node.opts["batch_normalize"]:
                bn = getattr(module, f"batch_norm_{node.index}")
                named = {
                    "beta": bn.bias,
                    "gamma": bn.weight,
                    "mean": bn.running_mean,
                    "variance": bn.running_var,
                }
            else:
                named = {"bias": conv.bias}
            found += [(node.index, name, t) for name, t in {**named, "kernels": conv.weight}.items()]
        elif isinstance(getattr(module, "weights", None), nn.Parameter):
            found.append((node.index, "weights", module.weights))
    return found


def check_values(path, arrays, floats: np.ndarray, error=WeightsError) -> None:
    """Raises `error` naming the first layer whose values are no weights: not finite, or a negative variance.

    Args:
        arrays: as `in_order` gives them.
        floats: their values, one after the other.
    """
    at = 0
    for layer, name, tensor in arrays:
        part = floats[at : at + tensor.numel()]
        at += tensor.numel()
        if not np.isfinite(part).all():
            bad = int((~np.isfinite(part)).sum())
            raise error(
                path,
                f"layer {layer}: {bad} of {part.size} values of {name} are not finite",
                "finite weights",
                "use a checkpoint from before the training diverged",
            )
        if name == "variance" and (part < -TINY).any():
            raise error(
                path,
                f"layer {layer}: a running variance is {part.min():g}",
                "variances of at least 0",
                "the file belongs to another cfg, or is damaged",
            )


def require_finite(model: Darknet, path, error=WeightsError) -> None:
    """Raises `error` naming the first layer with a value that is not finite."""
    for layer, name, tensor in in_order(model):
        if not torch.isfinite(tensor).all():
            raise error(
                path,
                f"layer {layer}: {name} holds values that are not finite",
                "finite weights",
                "nothing was written",
            )
