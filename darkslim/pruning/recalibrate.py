"""Re-estimates the running statistics of batch norms on a few training pictures (EagleEye, Li 2020, arXiv
2007.02491).

Folding makes the compact network equal to the masked one, whose statistics are those of the network before
the cut. What the cut changes further down, they do not know; a few batches put that right.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..base.errors import DatasetError


def recalibrate(model, batches: Iterable) -> int:
    """Replaces every running mean and variance of `model`, in place, by the average over batches.

    Nothing else changes; carriers, whose gamma is 0, stay the constants that they are. Batches of one picture
    are left out: a map of one cell would have no variance. After an error the statistics are as they were
    before.

    Args:
        batches: yields (images (B, C, H, W), uint8 or float in 0..1; targets, which are not looked at), B >
            1.

    Returns:
        How many pictures were used.

    Raises:
        DatasetError: there are none, or they give statistics that are no finite numbers.
    """
    norms = model.batch_norms()
    device = next(model.parameters()).device
    momenta, training, pictures = {}, model.training, 0
    before = {layer: [b.clone() for b in bn.buffers()] for layer, bn in norms.items()}
    model.eval()
    try:
        for layer, bn in norms.items():
            momenta[layer], bn.momentum = bn.momentum, None  # None: the plain average of all batches
            bn.reset_running_stats()
            bn.train()
        with torch.no_grad():
            for images, _ in batches:
                if len(images) > 1:
                    model.raw_heads(
                        images.to(device).float() / 255 if images.dtype == torch.uint8 else images.to(device)
                    )
                    pictures += len(images)
        _check(norms, pictures)
    except BaseException:
        for layer, bn in norms.items():
            for buffer, old in zip(bn.buffers(), before[layer], strict=True):
                buffer.copy_(old)
        raise
    finally:
        for layer, bn in norms.items():
            bn.momentum = momenta.get(layer, bn.momentum)
        model.train(training)
    return pictures


def _check(norms: dict[int, nn.BatchNorm2d], pictures: int) -> None:
    if not pictures:
        raise DatasetError(
            "recalibration",
            "no batch of at least two training pictures",
            "one or more",
            "use a larger --batch_size or a longer list",
        )
    for layer, bn in norms.items():
        if not (torch.isfinite(bn.running_mean).all() and torch.isfinite(bn.running_var).all()):
            raise DatasetError(
                "recalibration",
                f"the statistics of layer {layer} are not finite",
                "finite numbers",
                "look at the weights and the pictures",
            )
