"""Dynamic network surgery (Guo 2016, arXiv 1608.04493): weights are pruned *and spliced back* while the
network trains.

A weight is closed where its size falls below 0.9 T of its layer and opened again where it rises above 1.1 T;
in between it stays what it is. The forward pass sees open weights only, the update goes to *all* of them: a
closed weight that would have helped grows until it is back. T = mu + c sigma of the sizes at the start, with
the c at which the share that is asked for lies below it. Masks are renewed with probability (1 + g n)^-p at
step n, and no more in the last part of the run, which trains what is left.

Size need not be |W|: with factors (saliency.py) it is the root of what leaving the weight out costs, and the
weights that are 0 at the start, for which the others were solved again, are closed from the first step on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..network.darknet import Darknet
from ..training.progress import Progress
from .masked import _like

LOW, HIGH = 0.9, 1.1  # of T
UNTIL = 0.75  # of the run, in which masks are renewed
TENSORS = ("full", "masks", "closings", "returned", "factors")


class Splicing:
    """A constraint of training (training/penalties.py).

    Args:
        model: what is trained. ratio: the share of each layer's weights that lies below T at the start.
        growth, power: g and p of the probability of a renewal.
        seed: of the draws.
        factors: layer -> by what each weight is multiplied to be its size, with the kernels' shape; none: 1.
        thresholds: layer -> T, together with factors.

    Attributes:
        spread: layer -> c; without factors.
    """

    name, s, channels = "surgery", 0.0, 0
    columns = ("zeros", "returned", "again")

    def __init__(
        self,
        model: Darknet,
        ratio: float,
        growth: float = 1e-3,
        power: float = 1.0,
        seed: int = 0,
        factors: Mapping[int, Tensor] | None = None,
        thresholds: Mapping[int, float] | None = None,
    ):
        self.growth, self.power = growth, power
        self.weights = {layer: conv.weight for layer, conv in model.convolutions().items()}
        self.full = {layer: w.detach().clone() for layer, w in self.weights.items()}
        self.masks = {layer: torch.ones_like(w, dtype=torch.bool) for layer, w in self.weights.items()}
        self.factors = {layer: f.to(self.full[layer]) for layer, f in (factors or {}).items()}
        self.thresholds, self.spread = dict(thresholds or {}), {}
        if factors is None:
            for layer, weight in self.full.items():
                self.thresholds[layer], self.spread[layer] = _threshold(weight, ratio)
        else:
            self.masks = {layer: w != 0 for layer, w in self.full.items()}
        self.closings = {layer: (~mask).to(torch.uint8) for layer, mask in self.masks.items()}
        self.returned = {layer: torch.zeros_like(m) for layer, m in self.masks.items()}
        self.generator = torch.Generator().manual_seed(seed)

    def before_step(self, progress: Progress) -> None:
        """The update goes to all weights; their gradients are those of the masked network."""
        with torch.no_grad():
            for layer, weight in self.weights.items():
                weight.copy_(self.full[layer])

    def after_step(self, progress: Progress, lr: float) -> None:
        draw = float(torch.rand(1, generator=self.generator, dtype=torch.float64))
        renews = progress.share < UNTIL and draw < (1 + self.growth * progress.step) ** -self.power
        with torch.no_grad():
            for layer, weight in self.weights.items():
                self.full[layer].copy_(weight)
                if renews:
                    sizes = weight.abs()
                    self._renew(layer, sizes * self.factors[layer] if self.factors else sizes)
                weight.mul_(self.masks[layer])

    def _renew(self, layer: int, sizes: Tensor) -> None:
        mask, threshold = self.masks[layer], self.thresholds[layer]
        closes, opens = mask & (sizes <= LOW * threshold), ~mask & (sizes > HIGH * threshold)
        mask ^= closes | opens
        self.returned[layer] |= opens
        self.closings[layer] += closes & (self.closings[layer] < 255)

    def finish(self, model: Darknet) -> None:
        """Closes what is closed in another network of the same shapes, such as the average."""
        with torch.no_grad():
            for layer, conv in model.convolutions().items():
                conv.weight.mul_(self.masks[layer].to(conv.weight.device))

    def report(self) -> dict[str, float]:
        """Shares of all weights: closed now; back at least once; closed more than once."""
        whole = max(1, sum(mask.numel() for mask in self.masks.values()))
        return {
            "zeros": 1 - sum(int(mask.sum()) for mask in self.masks.values()) / whole,
            "returned": sum(int(r.sum()) for r in self.returned.values()) / whole,
            "again": sum(int((c > 1).sum()) for c in self.closings.values()) / whole,
        }

    def dose(self, rates: Sequence[float], momentum: float) -> None:
        return None

    def state(self) -> dict:
        tensors = {name: getattr(self, name) for name in TENSORS}
        kept = {name: {str(k): v for k, v in values.items()} for name, values in tensors.items()}
        thresholds = {str(k): v for k, v in self.thresholds.items()}
        return {**kept, "thresholds": thresholds, "generator": self.generator.get_state()}

    def load(self, state: dict) -> None:
        self.factors = {int(layer): torch.empty_like(self.full[int(layer)]) for layer in state["factors"]}
        for name in TENSORS:
            for layer, mine in getattr(self, name).items():
                mine.copy_(_like(state[name][str(layer)], mine))
        self.thresholds = {layer: float(state["thresholds"][str(layer)]) for layer in self.thresholds}
        self.generator.set_state(state["generator"].cpu())


def _threshold(weight: Tensor, ratio: float) -> tuple[float, float]:
    """T, below which a share of the sizes lies, and its distance c from their mean in deviations."""
    sizes = weight.abs().double().reshape(-1)
    place = min(int(ratio * len(sizes)), len(sizes) - 1)
    threshold = float(sizes.sort().values[place]) if ratio else 0.0
    deviation = float(sizes.std(unbiased=False))
    return threshold, (threshold - float(sizes.mean())) / deviation if deviation else 0.0
