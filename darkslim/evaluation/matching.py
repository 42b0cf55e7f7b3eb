"""Which detections of an image are right."""

from __future__ import annotations

import numpy as np
import torch

from ..base.boxes import iou_matrix


def as_array(values) -> np.ndarray:
    """A tensor (any device) or array as a numpy array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def on_ignored(detections, ignored, iou_thres: float = 0.5) -> np.ndarray:
    """Detections that lie on something that counts neither as found nor as missed, by COCO's rule for crowds:
    by the share of the detection that an ignored box of its class covers.

    Args:
        detections: (n, 6), as in `match`. ignored: (k, 5): left, top, right, bottom, class.

    Returns:
        bool (n,).
    """
    found, ignored = as_array(detections).astype(np.float64), as_array(ignored).astype(np.float64)
    if not len(found) or not len(ignored):
        return np.zeros(len(found), bool)
    low = np.maximum(found[:, None, :2], ignored[None, :, :2])
    high = np.minimum(found[:, None, 2:4], ignored[None, :, 2:4])
    inside = (high - low).clip(0).prod(2)
    area = (found[:, 2:4] - found[:, :2]).clip(0).prod(1)
    covered = inside / np.maximum(area, 1e-16)[:, None]
    covered[found[:, 5, None] != ignored[None, :, 4]] = 0
    return covered.max(1) >= iou_thres


def match(detections, truths, iou_thres: float = 0.5, plus_one: bool = False) -> np.ndarray:
    """True positives of one image, all decided at once.

    In descending score (ties: lower index first) each detection looks at the truth of its own class that it
    overlaps most (ties: lower index). It is a true positive if that overlap is at least `iou_thres` and no
    earlier detection has taken that truth; otherwise a false positive, even where a second, free truth would
    do. That is the rule of PASCAL VOC and of the reference, but for one thing: the reference looks at the
    truths of all classes, so that a detection can be counted as right on another class's box. (COCO lets a
    detection fall back on the second truth.)

    Args:
        detections: tensor or array (n, 6): left, top, right, bottom, score, class.
        truths: tensor or array (m, 5): left, top, right, bottom, class; the same unit.
        iou_thres: 0..1.
        plus_one: as in `boxes.iou_matrix`.

    Returns:
        bool (n,), in the order given.
    """
    found, truths = as_array(detections).astype(np.float64), as_array(truths).astype(np.float64)
    right = np.zeros(len(found), bool)
    if not len(found) or not len(truths):
        return right
    overlap = iou_matrix(found[:, :4], truths[:, :4], plus_one)
    overlap[found[:, 5, None] != truths[None, :, 4]] = -1
    best = overlap.argmax(1)
    order = np.argsort(-found[:, 4], kind="stable")
    order = order[overlap[order, best[order]] >= iou_thres]
    _, first = np.unique(
        best[order], return_index=True
    )  # unique reports the first occurrence: the highest score
    right[order[first]] = True
    return right
