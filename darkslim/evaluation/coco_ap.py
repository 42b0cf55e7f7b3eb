"""COCO's average precision, mean over IoU .50:.05:.95 (Lin et al. 2014), by faster-coco-eval: in memory,
without a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .matching import as_array

MAX_DETECTIONS = 100  # COCO counts no more than these an image and class


def coco_ap(detections: Sequence, truths: Sequence, ignored: Sequence | None = None) -> float:
    """AP .50:.95 over all sizes, at most 100 detections an image and class, mean over the classes that have
    truths.

    Args:
        detections: one (n, 6) tensor or array an image: left, top, right, bottom, score, class.
        truths: one (m, 5) an image: left, top, right, bottom, class.
        ignored: the same of crowds, which count neither as found nor as missed.

    Returns:
        0..1; 0 where there are no truths or no detections.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    detections, truths = [as_array(d) for d in detections], [as_array(t) for t in truths]
    labels = sorted({int(c) for t in truths for c in t[:, 4]})
    rows = (
        np.concatenate([_rows(i, d, labels) for i, d in enumerate(detections)])
        if detections
        else np.zeros((0, 7))
    )
    if not labels or not len(rows):
        return 0.0
    dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(truths))],
        "categories": [{"id": c, "name": str(c)} for c in labels],
        "annotations": _annotations(
            truths, [] if ignored is None else [as_array(t) for t in ignored], labels
        ),
    }
    gt = COCO(dataset)
    run = COCOeval_faster(gt, gt.loadRes(rows), "bbox", print_function=_silent)
    run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
    run.params.maxDets = [MAX_DETECTIONS]
    run.evaluate()
    run.accumulate()
    precision = np.asarray(run.eval["precision"])  # (IoU, recall, class, size, detections); -1: no truth
    return float(precision[precision > -1].mean()) if (precision > -1).any() else 0.0


def _silent(*args, **kwargs) -> None:
    """Takes the place of the library's messages."""


def _rows(image: int, found: np.ndarray, labels: list[int]) -> np.ndarray:
    """(k, 7): image, left, top, width, height, score, class of what COCO would count, in descending score."""
    found = found[np.isin(found[:, 5], labels)].astype(np.float64)
    found = found[np.lexsort((-found[:, 4], found[:, 5]))]
    rank = np.arange(len(found)) - np.searchsorted(found[:, 5], found[:, 5])
    found = found[rank < MAX_DETECTIONS]
    size = found[:, 2:4] - found[:, :2]
    return np.concatenate((np.full((len(found), 1), image), found[:, :2], size, found[:, 4:6]), 1)


def _annotations(
    truths: Sequence[np.ndarray], ignored: Sequence[np.ndarray], labels: list[int]
) -> list[dict]:
    rows = [(i, row, 0) for i, rows in enumerate(truths) for row in rows.tolist()]
    rows += [(i, row, 1) for i, rows in enumerate(ignored) for row in rows.tolist() if int(row[4]) in labels]
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": crowd,
        }
        for number, (image, (x1, y1, x2, y2, label), crowd) in enumerate(rows, 1)
    ]
