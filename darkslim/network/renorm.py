"""Batch norms said anew: what a network makes stays, while its running statistics become those of the maps
that its convolutions make by now.

With zeros a convolution makes something else than what its running mean and variance speak of. To a network
that is used this is the same; one that trains divides by the statistics of its batch. A channel of which a
tenth of the spread is left then comes out ten times as large as before, one that has become constant falls to
its beta, and what was solved behind them is lost in the first step. With the mean m' and variance v' of now,

    gamma' = gamma sqrt((v' + eps) / (v + eps)),   beta' = beta + gamma (m' - m) / sqrt(v + eps)

say the same as gamma, beta, m and v. Readers of Darknet's files differ in what they add to a variance (1e-5
here and in Darknet, 1e-6 in OpenCV), so v' is not let fall below LEAST where v was not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..base.errors import DatasetError
from .darknet import Darknet
from .walk import Walk

LEAST = 1e-2  # variance: what readers add to it differs by half a thousandth of its root


def renormalize(model: Darknet, batches: Iterable[Tensor]) -> int:
    """Rewrites the batch norms of `model`, in place, for the pictures it is shown; how many norms that were.

    Channels whose gamma is 0, such as carriers, are constants and stay as they are.

    Args:
        batches: pictures (B, C, H, W), uint8 or float in 0..1.

    Raises:
        DatasetError: no pictures, or pictures that give statistics which are not finite.
    """
    norms = model.batch_norms()
    found = {layer: _Moments(bn.num_features, bn.running_var.device) for layer, bn in norms.items()}
    hooks = [bn.register_forward_pre_hook(found[layer].take) for layer, bn in norms.items()]
    walk, training = Walk(model, list(batches), 0), model.training
    model.eval()
    try:
        with torch.no_grad():
            for number in range(len(walk.batches)):
                model.raw_heads(walk.picture(number))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    _check(found, walk.pictures)
    for layer, bn in norms.items():
        _say(bn, found[layer].mean, found[layer].var)
    return len(norms)


class _Moments:
    """Mean and variance of each channel over pictures and positions, one batch after another (Chan 1983)."""

    def __init__(self, channels: int, device):
        self.count = 0
        self.mean, self.away = torch.zeros(2, channels, dtype=torch.float64, device=device)

    def take(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        maps = inputs[0]
        number = maps.numel() // maps.shape[1]
        var, mean = (t.double() for t in torch.var_mean(maps, (0, 2, 3), correction=0))
        off, whole = mean - self.mean, self.count + number
        self.away += var * number + off**2 * (self.count * number / whole)
        self.mean += off * (number / whole)
        self.count = whole

    @property
    def var(self) -> Tensor:
        return self.away / self.count


def _check(found: dict[int, _Moments], pictures: int) -> None:
    place = "statistics"
    if not pictures:
        raise DatasetError(place, "no batch of training pictures", "one or more")
    for layer, moments in found.items():
        if not (torch.isfinite(moments.mean).all() and torch.isfinite(moments.away).all()):
            raise DatasetError(
                place,
                f"layer {layer} makes numbers that are not finite",
                "finite numbers",
                "look at the weights and the pictures",
            )


def _say(bn: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Gives a norm other statistics, and the gammas and betas that make up for them."""
    gamma, old, kind = bn.weight.detach().double(), bn.running_var.double(), bn.running_var.dtype
    var = torch.maximum(var, old.clamp(max=LEAST))
    mean, var = mean.to(kind).double(), var.to(kind).double()  # as they are stored
    factor = gamma / (old + bn.eps).sqrt()
    beta = bn.bias.detach().double() + factor * (mean - bn.running_mean.double())
    alive = gamma != 0
    with torch.no_grad():
        bn.weight[alive] = (factor * (var + bn.eps).sqrt())[alive].to(bn.weight.dtype)
        bn.bias[alive] = beta[alive].to(bn.bias.dtype)
        bn.running_mean[alive] = mean[alive].to(bn.running_mean.dtype)
        bn.running_var[alive] = var[alive].to(bn.running_var.dtype)
