"""Strategies: what a class scores, out of the scores of the channels that make it. A strategy is a policy
over classes.

| strategy | may cut | a class scores |
|---|---|---|
| `normal` | classes that one convolution makes | as its channel |
| `shortcut` | any class with gammas | as its first producer's |
| `slim` | any class with gammas | the most of its members: it stays if any of them passes (union of masks) |
| `group` | any class with gammas | an aggregate of its members |

A score's name may end in `-max` or `-l2`; without, the aggregate is the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..base.errors import RequestError
from ..network.channels import STRATEGIES, Channels
from . import importance

SCORE_NAMES = tuple(name + end for name in importance.SCORES for end in ("", "-max", "-l2"))


def class_scores(
    model,
    channels: Channels,
    classes: np.ndarray,
    strategy: str = "group",
    score: str = "gamma",
    context: importance.Context | None = None,
) -> np.ndarray:
    """The score of each class: float64 (n,).

    Args:
        classes: class ids (n,), each with batch-normalized producers only.
        score: one of `SCORE_NAMES`.

    Raises:
        RequestError: a strategy or a score that is not known; `taylor` without batches.
        WeightsError: weights that are no finite numbers.
    """
    check_names(strategy, score)
    name, _, aggregate = score.partition("-")
    importance.gammas(model, channels)  # whatever the score, a network that diverged is refused
    values = importance.scores(name, model, channels, context or importance.Context())
    members, scores = _members(channels, values, first=strategy == "shortcut")
    merge = AGGREGATES["max" if strategy == "slim" else aggregate or "mean"]
    return merge(members, scores, channels.count)[classes]


def check_names(strategy: str, score: str) -> None:
    """Raises RequestError for names that are not known."""
    if strategy not in STRATEGIES:
        raise RequestError("strategy", repr(strategy), "one of " + ", ".join(STRATEGIES))
    if score not in SCORE_NAMES:
        raise RequestError(
            "score", repr(score), "one of " + ", ".join(importance.SCORES) + ", alone or with -max or -l2"
        )


def _members(channels: Channels, values: importance.Scores, first: bool) -> tuple[np.ndarray, np.ndarray]:
    """(class, score) of every channel that has one; only those of each class's first producing layer if
    `first`.
    """
    members, scores = [], []
    seen = np.zeros(channels.count, dtype=bool)
    for layer in channels.convolutions:
        if layer not in values:
            continue
        ids = channels.ids[layer]
        use = ~seen[ids] if first else np.ones(len(ids), dtype=bool)
        members.append(ids[use])
        scores.append(values[layer][use])
        seen[ids] = True
    return np.concatenate(members or [np.zeros(0, np.int64)]), np.concatenate(scores or [np.zeros(0)])


def _mean(members: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(members, scores, count) / np.maximum(np.bincount(members, minlength=count), 1)


def _max(members: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    most = np.zeros(count)
    np.maximum.at(most, members, scores)
    return most


def _l2(members: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Root of the mean of the squares, so that a class does not gain by having many members."""
    return np.sqrt(_mean(members, scores**2, count))


AGGREGATES: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "mean": _mean,
    "max": _max,
    "l2": _l2,
}
