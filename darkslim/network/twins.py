"""Networks made without drawing random numbers: copies, and those whose parameters are not written yet."""

from __future__ import annotations

import warnings

import torch

from .cfg import Cfg
from .darknet import Darknet


def empty(cfg: Cfg, device="cpu") -> Darknet:
    """A network whose parameters are still to be written, made without drawing random numbers for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever read the cfg has been told
        if torch.device(device).type != "meta":
            return Darknet(cfg, drawn=False).to(device)
        with torch.device("meta"):
            return Darknet(cfg)


def twin(model, device=None, dtype: torch.dtype | None = None) -> Darknet:
    """An independent copy with its own cfg, in the same mode; optionally on another device or in another
    precision.
    """
    first = next(model.parameters())
    copy = empty(model.cfg.copy(), device or first.device).to(dtype or first.dtype)
    copy.load_state_dict(model.state_dict())
    copy.seen = model.seen
    return copy.train(model.training)
