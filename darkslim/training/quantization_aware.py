"""Training for 8 bits: the forward pass rounds kernels and feature maps as `export.py --int8` will, and
gradients pass as if it did not (Jacob et al. 2018, arXiv 1712.05877; Bengio et al. 2013, arXiv 1308.3432).

What is kept is the network in float32: an ordinary one, whose weights lie where rounding costs little.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..network.darknet import Darknet
from ..network.rounding import head_layers, rounded, spread, stepped
from .progress import Progress

FOLLOWS = 0.05  # of each batch in the range of a map


class RoundedConv2d(nn.Conv2d):
    """A convolution that rounds its kernel and its input while it trains, and is a plain one else.

    Attributes:
        range: (2,) float32, the least and the largest value of the input, as batches so far had them; two
            zeros before the first.
    """

    range: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            self._follow(x)
            whole = x.float()  # steps of a map in bfloat16 would be too coarse themselves
            moved = (stepped(whole, *self.range) - whole).to(x.dtype)
            kernel = rounded(self.weight) - self.weight
        return self._conv_forward(x + moved, self.weight + kernel, self.bias)

    def _follow(self, x: Tensor) -> None:
        found = torch.stack(spread(x)).float()
        if bool((self.range == 0).all()):
            self.range = found
        else:
            self.range = self.range + FOLLOWS * (found - self.range)


class QuantizationAware:
    """A constraint of training (penalties.py) that acts in the forward pass: it turns the convolutions of a
    network into ones that round, but for those that stay in float32 when it is exported.

    Args:
        model: on its device. kept: layers that are not rounded; none: those that feed the heads.
    """

    name, s, channels, columns = "int8", 0.0, 0, ()

    def __init__(self, model: Darknet, kept: Sequence[int] | None = None):
        kept = head_layers(model) if kept is None else kept
        self.layers = {i: conv for i, conv in model.convolutions().items() if i not in kept}
        for conv in self.layers.values():
            conv.__class__ = RoundedConv2d  # parameters, hooks and names stay
            conv.range = torch.zeros(2, device=conv.weight.device)

    def before_step(self, progress: Progress) -> None:
        pass

    def after_step(self, progress: Progress, lr: float) -> None:
        pass

    def finish(self, model) -> None:
        pass

    def report(self) -> dict[str, float]:
        return {}

    def dose(self, rates: Sequence[float], momentum: float) -> None:
        return None

    def state(self) -> dict:
        return {str(layer): conv.range for layer, conv in self.layers.items()}

    def load(self, state: dict) -> None:
        for layer, conv in self.layers.items():
            found = state[str(layer)]
            if found.shape != conv.range.shape:
                raise ValueError(f"range {tuple(found.shape)}, expected {tuple(conv.range.shape)}")
            conv.range = found.to(conv.range)
