"""Engines of programs that know few operators: they run the layers, and the boxes are decoded here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..network.cfg import Cfg
from ..network.heads import decode, raw_map
from .engine import Engine


class RawEngine(Engine):
    """Gives the maps that go into the heads, of one picture at a time and of one size."""

    def __init__(self, cfg: Cfg, size: tuple[int, int]):
        super().__init__(cfg, size, batch=1)

    def maps(self, x: np.ndarray) -> list[np.ndarray]:
        """(1, C, H, W) float32 -> the map of each head, (masks * (5 + classes), H, W) or with a 1 before."""
        raise NotImplementedError

    def run(self, x: Tensor) -> Tensor:
        maps = self.maps(x.detach().float().contiguous().cpu().numpy())
        size = tuple(x.shape[2:])
        found = []
        for head, made in zip(self.heads, maps, strict=True):
            raw = torch.from_numpy(np.ascontiguousarray(made))
            raw = raw.reshape(1, -1, *raw.shape[-2:])
            found.append(decode(raw_map(raw, head), head, size))
        return torch.cat(found, 1)
