"""What training minimises: a sum of terms, each with named parts.

The detection loss is one term. What else may pull on the same step, a teacher or a regulariser, is another:
it sees the same maps and the same pictures, and its parts join those of the detection loss in bars, tables
and TensorBoard.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..data.dataset import to_input
from .loss import DetectionLoss


@dataclass(frozen=True)
class Batch:
    """A micro-batch.

    Attributes:
        images: (B, C, H, W) float, 0..1.
        targets: (N, 6): image in the micro-batch, class, centre x, centre y, width, height; 0..1 of the
            input.
        whole: images of the whole step on this process, which sums are divided by.
    """

    images: Tensor
    targets: Tensor
    whole: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return tuple(self.images.shape[2:])


class Term(Protocol):
    """One thing to be minimised.

    Attributes:
        names: of its parts, unlike those of other terms.
    """

    names: tuple[str, ...]

    def __call__(self, raw: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(scalar with a gradient, detached scalar by name) of the raw head maps of a micro-batch."""


class Detection:
    """Darknet's detection loss as a term."""

    names = DetectionLoss.names

    def __init__(self, model_heads):
        self.loss = DetectionLoss(model_heads)

    def __call__(self, raw: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(raw, batch.targets, batch.size, images=batch.whole)


@torch.no_grad()
def plain_loss(
    model, batches: Iterable, device: torch.device | str = "cpu", autocast: Callable = contextlib.nullcontext
) -> float:
    """The detection loss of a network on some pictures, in eval mode, whatever its mode is.

    Args:
        batches: (images (B, C, H, W) uint8; targets (N, 6) as of `Batch`) each.
        autocast: a context for the forward pass.
    """
    term, total, training = Detection(model.heads), 0.0, model.training
    model.eval()
    for images, targets in batches:
        inputs = to_input(images, device)
        with autocast():
            raw = model.raw_heads(inputs)
        total += float(term(raw, Batch(inputs, targets.to(device), len(images)))[0])
    model.train(training)
    return total


class Objective:
    """The sum of some terms.

    Attributes:
        names: of all parts, in order.
    """

    def __init__(self, *terms: Term):
        self.terms = terms
        self.names = tuple(name for term in terms for name in term.names)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"parts of one name: {self.names}")

    def __call__(self, raw: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(total, its parts by name); the parts add up to the total."""
        total, parts = 0.0, {}
        for term in self.terms:
            value, named = term(raw, batch)
            total, parts = total + value, {**parts, **named}
        return total, parts
