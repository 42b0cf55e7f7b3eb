"""How sure it is that one network is better than another on some pictures: the bootstrap over pictures (Efron
1979), all networks on the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ap import average_precision

DRAWS = 400


@dataclass(frozen=True)
class Hits:
    """What mAP is made of, picture by picture.

    Attributes:
        image, score, label, right: of each detection (n,).
        truth_image, truth_label: of each truth (m,).
        images: how many there are.
    """

    image: np.ndarray
    score: np.ndarray
    label: np.ndarray
    right: np.ndarray
    truth_image: np.ndarray
    truth_label: np.ndarray
    images: int


def resampled(networks: Sequence[Hits], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """mAP (draws, networks) of every network on as many pictures as there are, drawn with replacement; a
    class that a draw has no truth of does not count in it.

    Args:
        networks: on the same pictures.
    """
    images = networks[0].images
    generator = np.random.default_rng(seed)
    times = np.stack(
        [np.bincount(generator.integers(images, size=images), minlength=images) for _ in range(draws)]
    )
    return np.stack([_maps(hits, times) for hits in networks], 1)


def better(first: np.ndarray, second: np.ndarray) -> float:
    """The share of draws in which the first of two columns of `resampled` is higher; equal ones count
    half.
    """
    return float(((first > second) + 0.5 * (first == second)).mean())


def _maps(hits: Hits, times: np.ndarray) -> np.ndarray:
    """mAP (draws,), where draw i has picture j `times[i, j]` times."""
    order = np.argsort(-hits.score, kind="stable")
    image, label, right = hits.image[order], hits.label[order], hits.right[order]
    sums, counted = np.zeros(len(times)), np.zeros(len(times))
    for one in np.unique(hits.truth_label):
        mine, there = label == one, hits.truth_label == one
        its, flags = image[mine], right[mine]
        for i, weight in enumerate(times):
            truths = int(weight[hits.truth_image[there]].sum())
            if truths:
                again = np.repeat(flags, weight[its])
                found = np.cumsum(again)
                area = average_precision(found / truths, found / np.arange(1, len(found) + 1))
                sums[i] += area
                counted[i] += 1
    return sums / np.maximum(counted, 1)
