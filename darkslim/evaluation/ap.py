"""Average precision as the reference computes it (py-faster-rcnn; Everingham et al. 2010, PASCAL VOC, all
points).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScore:
    """How one class was detected.

    Attributes:
        label: the class's number.
        ap: area under the monotone envelope of precision over recall, 0..1.
        precision, recall, f1: at the end of the curve, that is with all detections counted.
        truths, detections: how many of each.
        curve: (recall (k,), precision (k,)) after each detection in descending score.
    """

    label: int
    ap: float
    precision: float
    recall: float
    f1: float
    truths: int
    detections: int
    curve: tuple[np.ndarray, np.ndarray]


def average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the monotone envelope of a precision-recall curve, all points.

    Args:
        recall: (k,), not decreasing.
        precision: (k,).

    Returns:
        0..1; 0 for an empty curve.
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([0.0], precision, [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    step = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[step + 1] - recall[step]) * envelope[step + 1]))


def class_scores(
    right: np.ndarray, scores: np.ndarray, labels: np.ndarray, truth_labels: np.ndarray
) -> list[ClassScore]:
    """The score of every class that occurs among the truths; detections of other classes count nowhere, as in
    the reference.

    Args:
        right: bool (n,), the true positives of all images.
        scores: (n,).
        labels: (n,), the class of each detection.
        truth_labels: (m,), the class of each truth of all images.

    Returns:
        one `ClassScore` a class, in ascending class.
    """
    order = np.lexsort((-scores, labels))  # by class, then by descending score; stable
    right, labels = right[order], labels[order]
    result = []
    for label, truths in zip(*np.unique(truth_labels, return_counts=True), strict=True):
        hits = np.cumsum(right[np.searchsorted(labels, label) : np.searchsorted(labels, label, side="right")])
        count = len(hits)
        recall, precision = hits / truths, hits / np.arange(1, count + 1)
        r, p = (float(recall[-1]), float(precision[-1])) if count else (0.0, 0.0)
        f1 = 2 * p * r / (p + r) if p + r else 0.0
        area = average_precision(recall, precision)
        result.append(ClassScore(int(label), area, p, r, f1, int(truths), count, (recall, precision)))
    return result
