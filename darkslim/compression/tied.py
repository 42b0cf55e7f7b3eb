"""Training of shared values (deep compression, Han 2016, arXiv 1510.00149): all weights of one value move as
one, by the sum of their gradients.

The learning rate of a value is that of the run divided by the number of its weights, so that what is applied
is the mean: the loss is as many times more curved along a value that stands for n weights as along one of
them, and a step of the plain sum would leap across its valley. Zeros stay zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..network.darknet import Darknet
from ..network.packed import Shared
from ..training.progress import Progress
from .masked import _like


class Tied:
    """A constraint of training (training/penalties.py).

    Args:
        model: what is trained; its kernels become those of `shared`, in place.
        shared: layer -> its kernels as shared values.
    """

    name, s, channels = "tied", 0.0, 0
    columns: tuple[str, ...] = ()

    def __init__(self, model: Darknet, shared: Mapping[int, Shared]):
        self.weights = {layer: conv.weight for layer, conv in model.convolutions().items() if layer in shared}
        self.codes, self.counts, self.zero = {}, {}, {}
        for layer, weight in self.weights.items():
            codes = torch.from_numpy(shared[layer].codes.astype("int64")).to(weight.device)
            self.codes[layer] = codes
            self.counts[layer] = len(shared[layer].values)
            self.zero[layer] = bool(shared[layer].values[0] == 0)
            with torch.no_grad():
                weight.copy_(torch.from_numpy(shared[layer].weights()))

    def before_step(self, progress: Progress) -> None:
        """Each gradient becomes the mean of those of its value."""
        for layer, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.copy_(self._means(layer, weight.grad)[self.codes[layer]])

    def after_step(self, progress: Progress, lr: float) -> None:
        """Rounding must not part what belongs together."""
        self._tie(self.weights)

    def finish(self, model: Darknet) -> None:
        """Ties another network of the same shapes, such as the average."""
        self._tie({layer: model.convolutions()[layer].weight for layer in self.weights})

    def shared(self, model: Darknet) -> dict[int, Shared]:
        """The kernels of a tied network as shared values."""
        found = {}
        for layer, codes in self.codes.items():
            kernels = model.convolutions()[layer].weight.detach().to(codes.device)
            values = self._means(layer, kernels).float().cpu().numpy()
            found[layer] = Shared(values, codes.to(torch.uint8).cpu().numpy())
        return found

    def report(self) -> dict[str, float]:
        return {}

    def dose(self, rates: Sequence[float], momentum: float) -> None:
        return None

    def state(self) -> dict:
        return {"codes": {str(layer): codes.to(torch.uint8) for layer, codes in self.codes.items()}}

    def load(self, state: dict) -> None:
        for layer, codes in self.codes.items():
            stored = _like(state["codes"][str(layer)], codes.to(torch.uint8))
            if int(stored.max()) >= self.counts[layer]:
                raise ValueError("a code without a value")
            codes.copy_(stored)

    def _tie(self, weights: Mapping[int, Tensor]) -> None:
        with torch.no_grad():
            for layer, weight in weights.items():
                codes = self.codes[layer].to(weight.device)
                weight.copy_(self._means(layer, weight).to(weight.dtype)[codes])

    def _means(self, layer: int, values: Tensor) -> Tensor:
        """The mean over the weights of each shared value, float64; 0 for that of zeros."""
        codes = self.codes[layer].reshape(-1).to(values.device)
        sums = torch.zeros(self.counts[layer], dtype=torch.float64, device=values.device)
        sums.index_add_(0, codes, values.detach().reshape(-1).double())
        means = sums / torch.bincount(codes, minlength=self.counts[layer]).clamp(min=1)
        if self.zero[layer]:
            means[0] = 0
        return means
