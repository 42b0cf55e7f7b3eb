"""Anchors for a data set: k-means on the distance 1 - IoU of boxes that share a corner (Redmon & Farhadi,
YOLO9000, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.errors import RequestError


@dataclass(frozen=True)
class Anchors:
    """Anchor boxes, smallest area first.

    Attributes:
        sizes: (k, 2) width and height in pixels of the network input, whole numbers.
        mean_iou: of every box with the best of `sizes`.
    """

    sizes: np.ndarray
    mean_iou: float

    @property
    def line(self) -> str:
        """The line for the `[yolo]` sections of a cfg."""
        return "anchors=" + ",".join(f"{w},{h}" for w, h in self.sizes)


def shape_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes that share a corner: (n, 2) and (k, 2) widths and heights -> (n, k)."""
    shared = np.minimum(a[:, None], b[None]).prod(2)
    return shared / (a.prod(1)[:, None] + b.prod(1)[None] - shared)


def find_anchors(sizes: np.ndarray, k: int, seed: int = 0, restarts: int = 5, rounds: int = 300) -> Anchors:
    """k-means with k-means++ seeding; the best of several restarts.

    Args:
        sizes: (n, 2) box widths and heights in pixels of the network input.

    Raises:
        RequestError: fewer different boxes than anchors.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    different = len(np.unique(sizes, axis=0))
    if k < 1 or different < k:
        raise RequestError(
            "--anchors",
            f"{k} anchors from {different} different box sizes",
            "at least 1, and no more than there are",
        )
    rng = np.random.default_rng(seed)
    found = [_cluster(sizes, _spread(sizes, k, rng), rng, rounds) for _ in range(restarts)]
    best = max(found, key=lambda centres: shape_iou(sizes, centres).max(1).mean())
    whole = np.maximum(1, np.rint(best)).astype(int)
    whole = whole[np.lexsort((whole[:, 0], whole.prod(1)))]
    return Anchors(whole, float(shape_iou(sizes, whole.astype(float)).max(1).mean()))


def _spread(sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each further centre is drawn with a chance in proportion to its squared distance from those
    there are.
    """
    centres = sizes[rng.integers(len(sizes))][None]
    while len(centres) < k:
        far = (1 - shape_iou(sizes, centres).max(1)).clip(0) ** 2
        centres = np.concatenate([centres, sizes[rng.choice(len(sizes), p=far / far.sum())][None]])
    return centres


def _cluster(sizes: np.ndarray, centres: np.ndarray, rng: np.random.Generator, rounds: int) -> np.ndarray:
    owner = None
    for _ in range(rounds):
        overlap = shape_iou(sizes, centres)
        now = overlap.argmax(1)
        if owner is not None and np.array_equal(now, owner):
            break
        owner = now
        count = np.bincount(owner, minlength=len(centres))
        sums = np.stack([np.bincount(owner, sizes[:, i], len(centres)) for i in (0, 1)], 1)
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres)
        empty = np.flatnonzero(count == 0)
        if len(empty):  # an empty cluster moves to the boxes that are served worst
            centres[empty] = sizes[np.argsort(overlap.max(1))[: len(empty)]]
    return centres
