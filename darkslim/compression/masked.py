"""Training with weights that stay 0: gradual pruning by size, with a cubic schedule (Zhu and Gupta 2017,
arXiv 1710.01878).

What a mask has closed is 0 before every step, gets no gradient and so loses its momentum, and is 0 in the
average as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..network.darknet import Darknet
from ..training.progress import Progress

UNTIL = 0.75  # of the run, in which the share grows; the rest trains what is left
TIMES = 60  # that the masks are renewed in


class Masked:
    """A constraint of training (training/penalties.py).

    Args:
        model: what is trained.
        choose: (model, share of the whole request that is to be closed by now, 0 to 1) -> masks, layer ->
            bool array of what stays. What was closed once is 0, so it is chosen again.
    """

    name, s, channels, columns = "mask", 0.0, 0, ("zeros",)

    def __init__(self, model: Darknet, choose: Callable[[Darknet, float], dict[int, np.ndarray]]):
        self.model, self.choose = model, choose
        self.weights = {layer: conv.weight for layer, conv in model.convolutions().items()}
        self.masks = {layer: torch.ones_like(w, dtype=torch.bool) for layer, w in self.weights.items()}
        self.next = 0.0  # share of the run from which on the masks are renewed

    def before_step(self, progress: Progress) -> None:
        if progress.share >= self.next:
            self._renew(progress.share)
        for layer, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.mul_(self.masks[layer])

    def after_step(self, progress: Progress, lr: float) -> None:
        with torch.no_grad():
            for layer, weight in self.weights.items():
                weight.mul_(self.masks[layer])

    def _renew(self, share: float) -> None:
        done = min(1.0, share / UNTIL)
        for layer, keep in self.choose(self.model, 1 - (1 - done) ** 3).items():
            self.masks[layer] &= torch.from_numpy(keep).to(self.masks[layer].device)
        self.next = (round(share * TIMES / UNTIL) + 1) * UNTIL / TIMES if done < 1 else 2.0

    def finish(self, model: Darknet) -> None:
        """Closes what is closed in another network of the same shapes, such as the average."""
        with torch.no_grad():
            for layer, conv in model.convolutions().items():
                conv.weight.mul_(self.masks[layer].to(conv.weight.device))

    def report(self) -> dict[str, float]:
        """The share of weights that are closed."""
        whole = sum(mask.numel() for mask in self.masks.values())
        return {"zeros": 1 - sum(int(mask.sum()) for mask in self.masks.values()) / max(1, whole)}

    def dose(self, rates: Sequence[float], momentum: float) -> None:
        return None

    def state(self) -> dict:
        return {"masks": {str(layer): mask for layer, mask in self.masks.items()}, "next": self.next}

    def load(self, state: dict) -> None:
        for layer, mask in self.masks.items():
            mask.copy_(_like(state["masks"][str(layer)], mask))
        self.next = float(state["next"])


def _like(stored: Tensor, mine: Tensor) -> Tensor:
    """A tensor of a state, checked: copy_ would broadcast one of another shape."""
    if stored.shape != mine.shape or stored.dtype != mine.dtype:
        raise ValueError(f"{tuple(stored.shape)} {stored.dtype}, expected {tuple(mine.shape)} {mine.dtype}")
    return stored
