"""Matching and average precision: by hand, against a plain loop, and against pycocotools."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch

from darkslim.evaluation import average_precision, class_scores, coco_ap, match, score

BOX, SHIFTED, AWAY = [0, 0, 10, 10], [0, 0, 10, 6], [50, 50, 60, 60]


def made_up(seed, images=30, classes=4):
    """Detections near truths of the same class, near truths of another, and nowhere; one image without
    truths.
    """
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for i in range(images):
        m = rng.integers(1, 7) if i else 0
        low = rng.uniform(0, 300, (m, 2))
        truth = np.concatenate((low, low + rng.uniform(20, 90, (m, 2)), rng.integers(0, classes, (m, 1))), 1)
        near = truth[rng.integers(0, m, 30)] if m else np.zeros((0, 5))
        box = near[:, :4] + rng.normal(0, 6, (len(near), 4))
        label = np.where(rng.random(len(near)) < 0.8, near[:, 4], rng.integers(0, classes + 1, len(near)))
        found.append(
            np.concatenate((box, rng.uniform(0.01, 1, (len(near), 1)), label[:, None]), 1).astype(np.float32)
        )
        truths.append(truth.astype(np.float32))
    found[0] = np.array([[0, 0, 20, 20, 0.5, 1]], np.float32)
    return found, truths


def test_match_by_hand():
    truths = [[*BOX, 0], [*AWAY, 0], [*AWAY, 1]]
    found = [[*SHIFTED, 0.7, 0], [*BOX, 0.9, 0], [*AWAY, 0.8, 1], [*AWAY, 0.6, 2], [*AWAY, 0.5, 0]]
    # 0: IoU 0.6, but the better detection took that truth; 3: no truth of its class
    assert match(found, truths).tolist() == [False, True, True, False, True]
    assert match(torch.tensor(found[:1]), torch.tensor(truths), iou_thres=0.6).tolist() == [
        True
    ]  # 0.6 exactly is enough
    assert match(found[:1], truths, iou_thres=0.61).tolist() == [False]
    assert match(found[:1], truths, iou_thres=0.61, plus_one=True).tolist() == [True]  # 77 / 121
    assert match(np.zeros((0, 6)), truths).tolist() == []
    assert match(found, np.zeros((0, 5))).tolist() == [False] * 5


def test_a_taken_truth_is_not_replaced_by_the_second_best():
    truths = [[0, 0, 10, 10, 0], [0, 0, 10, 8, 0]]
    found = [[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 9.5, 0.8, 0]]  # both overlap the first truth most
    assert match(found, truths).tolist() == [True, False]


def test_average_precision_by_hand():
    assert average_precision(np.array([]), np.array([])) == 0
    assert average_precision(np.array([0.5, 1.0]), np.array([1.0, 1.0])) == 1
    # right, wrong, right of three truths: envelope 1 up to 1/3, then 2/3 up to 2/3
    assert average_precision(np.array([1, 1, 2]) / 3, np.array([1, 1 / 2, 2 / 3])) == pytest.approx(
        1 / 3 + 2 / 9
    )


def test_class_scores_by_hand():
    right = np.array([True, False, True, False])
    got = class_scores(right, np.array([0.9, 0.8, 0.7, 0.95]), np.array([0, 0, 0, 7]), np.array([0, 0, 0, 5]))
    assert [(s.label, s.truths, s.detections) for s in got] == [
        (0, 3, 3),
        (5, 1, 0),
    ]  # 7 is in no truth: not counted
    first, second = got
    assert (first.precision, first.recall, first.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert first.ap == pytest.approx(5 / 9)
    assert (second.ap, second.precision, second.recall, second.f1) == (0, 0, 0, 0)
    assert class_scores(np.zeros(0, bool), np.zeros(0), np.zeros(0), np.zeros(0)) == []


def ap_by_loop(found, truths, label, iou_thres=0.5):
    """The definition of PASCAL VOC (2010), one detection at a time."""
    ranked = sorted(
        ((row[4], i, row) for i, rows in enumerate(found) for row in rows if row[5] == label),
        key=lambda r: -r[0],
    )
    total, taken, hits, points = sum((t[:, 4] == label).sum() for t in truths), set(), 0, []
    for n, (_, i, a) in enumerate(ranked, 1):
        best, where = -1.0, None
        for k, b in enumerate(truths[i]):
            if b[4] != label:
                continue
            w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inter = float(max(w, 0)) * float(max(h, 0))
            iou = inter / (
                float(a[2] - a[0]) * float(a[3] - a[1]) + float(b[2] - b[0]) * float(b[3] - b[1]) - inter
            )
            if iou > best:
                best, where = iou, (i, k)
        if best >= iou_thres and where not in taken:
            taken.add(where)
            hits += 1
        points.append((hits / total, hits / n))
    area, previous = 0.0, 0.0
    for k, (recall, _) in enumerate(points):
        area += (recall - previous) * max(p for _, p in points[k:])
        previous = recall
    return area, points[-1] if points else (0.0, 0.0)


def test_score_equals_the_loop():
    found, truths = made_up(0)
    result = score(found, truths, coco=False)
    labels = sorted({int(c) for t in truths for c in t[:, 4]})
    assert [row["class"] for row in result.per_class] == labels and len(labels) == 4
    for row in result.per_class:
        area, (recall, precision) = ap_by_loop(found, truths, row["class"])
        assert 0.2 < area < 0.95
        assert (row["ap50"], row["recall"], row["precision"]) == pytest.approx(
            (area, recall, precision), abs=1e-12
        )
    assert result.map50 == pytest.approx(np.mean([row["ap50"] for row in result.per_class]))
    assert (result.images, result.boxes) == (30, sum(map(len, truths)))


def pycocotools_ap(found, truths):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({int(c) for t in truths for c in t[:, 4]})
    annotations, rows = [], []
    for i, (f, t) in enumerate(zip(found, truths, strict=True)):
        for x1, y1, x2, y2, c in t.tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(c),
                    "iscrowd": 0,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                }
            )
        rows += [
            {"image_id": i, "category_id": int(c), "score": s, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for x1, y1, x2, y2, s, c in f.tolist()
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": c} for c in labels],
        }
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_coco_ap_equals_pycocotools(seed, capfd):
    found, truths = made_up(seed)
    found[3] = np.concatenate([found[3]] * 40)  # more than the hundred that COCO counts
    ours = coco_ap(found, truths)
    assert capfd.readouterr() == ("", "")
    assert 0.1 < ours < 0.9
    assert ours == pytest.approx(pycocotools_ap(found, truths), abs=1e-9)


def test_coco_ap_by_hand():
    assert coco_ap([[[*BOX, 0.9, 0]]], [[[*BOX, 0]]]) == pytest.approx(1)
    assert coco_ap([[[*SHIFTED, 0.9, 0]]], [[[*BOX, 0]]]) == pytest.approx(
        0.3
    )  # right at .50, .55 and .60 of ten
    assert coco_ap([np.zeros((0, 6))], [[[*BOX, 0]]]) == 0
    assert coco_ap([[[*BOX, 0.9, 0]]], [np.zeros((0, 5))]) == 0
    assert coco_ap([], []) == 0


def test_nothing_to_count_is_zero_and_fit_for_json():
    for found, truths in (
        ([], []),
        ([np.zeros((0, 6))], [np.zeros((0, 5))]),
        ([[[*BOX, 0.9, 0]]], [np.zeros((0, 5))]),
        ([np.zeros((0, 6))], [[[*BOX, 3]]]),
    ):
        result = score(found, truths, names=["a", "b"])
        values = result.to_dict()
        json.dumps(values, allow_nan=False)
        assert (values["map50"], values["map"], values["precision"], values["recall"], values["f1"]) == (
            0,
            0,
            0,
            0,
            0,
        )
    assert values["per_class"] == [
        {
            "class": 3,
            "name": "3",
            "ap50": 0.0,
            "precision": 0.0,
            "recall": 0.0,
            "f1": 0.0,
            "truths": 1,
            "detections": 0,
        }
    ]
