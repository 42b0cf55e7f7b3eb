"""Class-balanced sampling: pictures of rare classes are shown more often (repeat factor sampling, Gupta 2019,
LVIS, arXiv 1908.03195).

A class that a share f of the pictures has is repeated max(1, sqrt(t / f)) times; a picture as often as its
rarest class. The fraction of a factor is drawn anew each epoch.
"""

from __future__ import annotations

import numpy as np


def repeat_factors(classes: np.ndarray, offsets: np.ndarray, threshold: float) -> np.ndarray:
    """How often each picture is to be shown where others are shown once, (pictures,) float64, at least 1.

    Args:
        classes: (boxes,) the class of every box. offsets: (pictures + 1,), where each picture's boxes begin.
        threshold: t, the share of pictures below which a class is rare.
    """
    pictures = len(offsets) - 1
    factors = np.ones(pictures)
    picture = np.repeat(np.arange(pictures), np.diff(offsets))
    for c in np.unique(classes):
        having = np.unique(picture[classes == c])
        factors[having] = np.maximum(factors[having], np.sqrt(threshold * pictures / len(having)))
    return factors


def repeated(factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many places of pictures as there are pictures, shuffled, each about as often as its factor says."""
    times = np.floor(factors + rng.random(len(factors))).astype(np.int64)
    return rng.permutation(np.repeat(np.arange(len(factors)), times))[: len(factors)]
