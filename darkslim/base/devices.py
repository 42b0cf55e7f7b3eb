"""The device that work is done on, and the seed of its random numbers."""

from __future__ import annotations

import random

import numpy as np
import torch

from .errors import RequestError


def device(name: str) -> torch.device:
    """The torch device that `--device` names: auto, cpu, cuda or cuda:N.

    Raises:
        RequestError: CUDA asked for and absent, or a name that is no device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name != "cuda" and not (name.startswith("cuda:") and name[5:].isdigit()):
        raise RequestError("--device", repr(name), "auto, cpu, cuda or cuda:N")
    if name.startswith("cuda"):
        count = torch.cuda.device_count()
        if count == 0:
            raise RequestError(
                "--device", f"{name} was asked for, but no GPU can be used here", remedy="use --device cpu"
            )
        if name != "cuda" and int(name[5:]) >= count:
            raise RequestError(
                "--device", f"{name} was asked for, but there are {count} GPUs", f"cuda:0 to cuda:{count - 1}"
            )
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
