"""Which weights go: the smallest of each layer, or of the whole network (Han 2015, arXiv 1506.02626), or two
of every four along the input (2:4, Mishra 2021, arXiv 2104.08378). By their size, or by what each is worth
(saliency.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..base.errors import RequestError
from ..network.darknet import Darknet

SCOPES = ("layer", "global")
PATTERN = "2:4"
FOUR, TWO = 4, 2
Worth = Mapping[int, np.ndarray]  # layer -> what each weight is worth, of the kernels' shape


def smallest(
    model: Darknet, ratio: float, scope: str = "layer", worth: Worth | None = None
) -> dict[int, np.ndarray]:
    """Layer -> bool array of the kernels' shape, True for what stays.

    Args:
        ratio: the share of the weights that goes, 0 to 1: floor(ratio * n) of each layer's n, or of all.
        scope: "layer" or "global". Ties go by layer and place.
        worth: of each weight; none: its size.

    Raises:
        RequestError: a value out of range.
    """
    if not 0 <= ratio <= 1:
        raise RequestError("--ratio", str(ratio), "0 to 1")
    if scope not in SCOPES:
        raise RequestError("--scope", repr(scope), "one of " + ", ".join(SCOPES))
    sizes = worth or {layer: _sizes(conv) for layer, conv in model.convolutions().items()}
    if scope == "layer":
        return all_but(sizes, {layer: gone(s.size, ratio) for layer, s in sizes.items()})
    whole = np.concatenate([s.reshape(-1) for s in sizes.values()] or [np.zeros(0)])
    kept = all_but({0: whole}, {0: gone(whole.size, ratio)})[0]
    ends = np.cumsum([s.size for s in sizes.values()])
    parts = np.split(kept, ends[:-1])
    return {layer: p.reshape(sizes[layer].shape) for layer, p in zip(sizes, parts, strict=True)}


def all_but(sizes: Worth, numbers: Mapping[int, int]) -> dict[int, np.ndarray]:
    """Layer -> bool array of the kernels' shape: all stay but the `numbers` smallest of it."""
    found = {}
    for layer, worth in sizes.items():
        kept = np.ones(worth.size, bool)
        kept[np.argsort(worth.reshape(-1), kind="stable")[: numbers[layer]]] = False
        found[layer] = kept.reshape(worth.shape)
    return found


def gone(number: int, share: float) -> int:
    """How many weights of a number a share is."""
    return int(share * number + 1e-9)


def two_of_four(model: Darknet, worth: Worth | None = None) -> dict[int, np.ndarray]:
    """Layer -> bool array: of every four inputs, at one filter and one place of the kernel, the two largest
    stay. Of what is left over behind the last four, at most two.

    Args:
        worth: of each weight; none: its size.
    """
    found = {}
    for layer, conv in model.convolutions().items():
        sizes = _sizes(conv) if worth is None else worth[layer]
        filters, inputs, high, wide = sizes.shape
        groups = -(-inputs // FOUR)
        padded = np.full((filters, groups * FOUR, high, wide), -1.0)
        padded[:, :inputs] = sizes
        fours = padded.reshape(filters, groups, FOUR, high, wide)
        rank = np.argsort(np.argsort(-fours, axis=2, kind="stable"), axis=2)
        found[layer] = (rank < TWO).reshape(padded.shape)[:, :inputs]
    return found


def apply(model: Darknet, keep: dict[int, np.ndarray]) -> None:
    """Sets what does not stay to 0, in place."""
    with torch.no_grad():
        for layer, conv in model.convolutions().items():
            if layer in keep:
                conv.weight.mul_(torch.from_numpy(keep[layer]).to(conv.weight.device))


def zeros(model: Darknet) -> list[dict]:
    """layer, weights, zeros of every convolution."""
    return [
        {"layer": layer, "weights": conv.weight.numel(), "zeros": int((conv.weight == 0).sum())}
        for layer, conv in model.convolutions().items()
    ]


def _sizes(conv) -> np.ndarray:
    return conv.weight.detach().abs().cpu().double().numpy()
