"""From what the loader gives to what one forward pass takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor


def to_device(images: Tensor, targets: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) 0..1 in channels_last memory, and (N, 6) targets, on `device`; float32, or float64 as
    given.
    """
    images = images.to(device, non_blocking=True)
    if images.dtype != torch.float64:
        images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    targets = targets.to(device, non_blocking=True).to(images.dtype)
    return images.contiguous(memory_format=torch.channels_last), targets


def micro_batches(images: Tensor, targets: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cuts a batch into `count` parts of consecutive images, each with its targets renumbered from 0."""
    start = 0
    for part in images.tensor_split(min(count, len(images))):
        mine = (targets[:, 0] >= start) & (targets[:, 0] < start + len(part))
        some = targets[mine].clone()
        some[:, 0] -= start
        start += len(part)
        yield part, some


def files_of(loader, number: int) -> list[str]:
    """The image files of batch `number` of the loader's epoch, for messages; [] if the loader cannot tell."""
    images = (
        getattr(getattr(loader.dataset, "dataset", loader.dataset), "images", None)
        if hasattr(loader, "dataset")
        else None
    )
    if images is None or not hasattr(loader, "batch_sampler"):
        return []
    start = getattr(loader.batch_sampler, "start", 0)
    items = next(itertools.islice(iter(loader.batch_sampler), number - start, None), [])
    return [str(images[item[1] if isinstance(item, tuple) else item]) for item in items]
