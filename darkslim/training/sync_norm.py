"""Batch norm over the batches of all processes, so that several processes train as one does.

torch's own SyncBatchNorm runs on GPUs only, and is no BatchNorm to those who look for one.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..network.layers import BatchNorm


class SyncBatchNorm(BatchNorm):
    """A BatchNorm whose means and variances while training are those of every process's images together.

    Every process must call it equally often. Parameters, buffers and state-dict keys are BatchNorm's.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        local = x.numel() // x.shape[1]
        count = _sum(wide.new_tensor([local]))
        mean = _sum(wide.sum((0, 2, 3))) / count
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().sum((0, 2, 3))) / count  # two passes: no difference of large numbers
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over processes; what one of them loses by it, all lose."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def _sum(x: Tensor) -> Tensor:
    return _Sum.apply(x)


def synchronise(model: nn.Module) -> None:
    """Turns every BatchNorm of the model into one that counts all processes; parameters stay the same
    objects.
    """
    for module in model.modules():
        if type(module) is BatchNorm:
            module.__class__ = SyncBatchNorm  # state, hooks and place in the network are as before
