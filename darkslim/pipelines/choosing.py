"""The pictures that choose. Whatever picks one of several networks by its mAP looks at these, and what judges
the pick is left out of it.

Asked for: that list. Else `valid`, where the data name a `test` list beside it. Else, since `valid` is then
the only other list and stands for the test, a part of `train`, drawn by the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.datafile import DataConfig

SHARE, MOST_SHARE, LEAST, MOST = (
    0.1,
    0.2,
    100,
    2000,
)  # of a list: a tenth; small lists more, large ones no more than is of use
STREAM = 2**32 - 3  # of random numbers, beside those of the loader


def chosen_list(data: DataConfig, asked: str | None) -> Path | None:
    """The list that chooses; None where a part of `train` has to."""
    if asked is not None:
        return Path(asked)
    return data.valid if data.test is not None and data.test != data.valid else None


def held_out(count: int, seed: int) -> np.ndarray:
    """The places of the pictures that a list of `count` gives up for choosing, ascending: at least one, and
    not all.
    """
    wanted = max(int(SHARE * count), min(LEAST, int(MOST_SHARE * count)))
    return np.sort(
        np.random.default_rng([seed, STREAM]).permutation(count)[: max(1, min(wanted, MOST, count - 1))]
    )


def rest(count: int, places: Sequence[int]) -> np.ndarray:
    """The other places, ascending."""
    return np.setdiff1d(np.arange(count), places)


def said(data: DataConfig, asked: str | None, pictures: int, trained_on: bool) -> str:
    """What is said aloud about the pictures that choose.

    Args:
        trained_on: whether the network has seen them, where they are a part of `train`.
    """
    path = chosen_list(data, asked)
    if path is not None:
        return f"chosen by:  mAP on the {pictures} pictures of {path}" + (
            "" if asked else f", since {data.path} names a test list too"
        )
    seen = ", which this network was trained on" if trained_on else ", which no training of this run sees"
    return (
        f"chosen by:  mAP on {pictures} pictures drawn from {data.train} by the seed{seen}: {data.valid} is "
        "the only other list, and "
        "must not choose (--choose_on LIST names another)"
    )
