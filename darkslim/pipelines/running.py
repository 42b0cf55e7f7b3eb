"""Networks under the engine that was asked for."""

from __future__ import annotations

import torch
from torch import nn

from ..base.errors import RequestError, WeightsError
from ..deploy import engines
from ..network.darknet import Darknet
from ..pruning.fuse import fuse


def running(model: Darknet, engine: str | None, size: tuple[int, int], device: torch.device) -> nn.Module:
    """What runs a network on a device: itself, or an engine that was given it with its norms folded in.

    Args:
        engine: None: PyTorch with norms folded, which takes half of the time of a slim network, or as it
            trains where folding would leave the range of float32.
        size: (height, width) of the pictures to come.

    Raises:
        RequestError: an engine that is not installed, or does not run there. FileError, WeightsError: it
            cannot run this network.
    """
    if engine is None:
        try:
            return running(model, "torch-folded", size, device)
        except WeightsError:
            engine = "torch"
    if engine == "torch":
        return model.to(device, memory_format=torch.channels_last)
    if device.type != "cpu" and not engine.startswith("torch"):
        raise RequestError("--engine", f"{engine} runs on the processor here", remedy="--device cpu")
    return engines.build(engine, fuse(model), size).to(device)
