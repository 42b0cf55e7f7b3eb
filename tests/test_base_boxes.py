"""Box formats, the IoU family against numbers worked out by hand, NMS against the loop that it replaces."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from darkslim.base import boxes
from darkslim.base.errors import RequestError


def greedy_loop(xyxy, scores, classes, thres, kind="default", beta=0.6, plus_one=False):
    """Box by box, with the textbook formula on Python floats of the array's precision."""
    one = xyxy.dtype.type(plus_one)

    def overlap(a, b):
        w = max(min(a[2], b[2]) - max(a[0], b[0]) + one, 0)
        h = max(min(a[3], b[3]) - max(a[1], b[1]) + one, 0)
        union = (a[2] - a[0] + one) * (a[3] - a[1] + one) + (b[2] - b[0] + one) * (b[3] - b[1] + one) - w * h
        iou = w * h / (union + xyxy.dtype.type(1e-16))
        if kind == "default":
            return iou
        c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
        d2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
        return iou - (d2 / c2 if c2 > 0 else 0) ** (0.6 if kind == "greedynms" else beta)

    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(classes[i] != classes[k] or not overlap(xyxy[k], xyxy[i]) > thres for k in kept):
            kept.append(i)
    return kept


def candidates(seed, count, classes=3, size=100.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, size, (6, 2))[rng.integers(0, 6, count)] + rng.normal(0, 4, (count, 2))
    xywh = np.concatenate((centre, rng.uniform(5, 40, (count, 2))), 1).astype(dtype)
    scores = rng.integers(0, 50, count).astype(dtype) / 50  # many ties
    return boxes.xywh_to_xyxy(xywh), scores, rng.integers(0, classes, count)


def test_formats_are_inverse():
    xywh = torch.tensor([[10.0, 20, 4, 6], [0, 0, 0, 0]])
    xyxy = boxes.xywh_to_xyxy(xywh)
    assert xyxy.tolist() == [[8, 17, 12, 23], [0, 0, 0, 0]]
    assert torch.equal(boxes.xyxy_to_xywh(xyxy), xywh)
    assert np.array_equal(boxes.xywh_to_xyxy(xywh.numpy()), xyxy.numpy())


def test_iou_matrix_by_hand():
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    b = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]])
    assert torch.allclose(boxes.iou_matrix(a, b), torch.tensor([[1 / 3, 1, 0, 0], [0, 0, 0, 0]]))
    # with a pixel more: 11 x 11 boxes that share 6 x 11
    assert boxes.iou_matrix(a[:1], b[:1], plus_one=True).item() == pytest.approx(66 / (121 + 121 - 66))
    assert np.allclose(boxes.iou_matrix(a.numpy(), b.numpy()), boxes.iou_matrix(a, b).numpy())
    assert boxes.iou_matrix(a[:0], b).shape == (0, 4)


def test_wh_iou_by_hand():
    got = boxes.wh_iou(torch.tensor([[10.0, 10], [4, 8]]), torch.tensor([[10.0, 10], [20, 5]]))
    assert torch.allclose(got, torch.tensor([[1, 50 / 150], [32 / 100, 20 / 112]]))


def test_pairwise_iou_family_by_hand():
    a, b = torch.tensor([[5.0, 5, 10, 10]]), torch.tensor([[10.0, 5, 10, 20]])  # share 5 x 10; C is 15 x 20
    iou = 50 / (100 + 200 - 50)
    assert boxes.pairwise_iou(a, b).item() == pytest.approx(iou)
    assert boxes.pairwise_iou(a, b, "giou").item() == pytest.approx(iou - (300 - 250) / 300)
    diou = iou - 25 / (15**2 + 20**2)
    assert boxes.pairwise_iou(a, b, "diou").item() == pytest.approx(diou)
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    assert boxes.pairwise_iou(a, b, "ciou").item() == pytest.approx(diou - v * v / (1 - iou + v))
    apart = torch.tensor([[105.0, 5, 10, 10]])
    assert boxes.pairwise_iou(a, apart, "giou").item() == pytest.approx(-(1100 - 200) / 1100)
    with pytest.raises(RequestError, match="kind 'eiou'; iou, giou, diou or ciou"):
        boxes.pairwise_iou(a, b, "eiou")


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_pairwise_iou_is_finite_and_learns(kind):
    empty = torch.zeros(1, 4)
    for a, b in (
        (empty, empty),
        (empty, torch.tensor([[0.5, 0.5, 1, 0]])),
        (torch.tensor([[0.0, 0, 0, 2]]), empty),
    ):
        a = a.clone().requires_grad_()
        value = boxes.pairwise_iou(a, b, kind)
        value.sum().backward()
        assert value.isfinite().all() and a.grad.isfinite().all()
    a, b = torch.tensor([[4.0, 5, 8, 8]], requires_grad=True), torch.tensor([[5.0, 5, 10, 10]])
    boxes.pairwise_iou(a, b, kind).sum().backward()
    assert a.grad[0, 0] > 0 and a.grad[0, 2] > 0  # right and wider is better


def test_alpha_of_ciou_is_not_differentiated():
    """The gradient by finite differences with alpha held where it is."""
    a, b = (
        torch.tensor([[4.0, 5, 8, 3]], dtype=torch.float64),
        torch.tensor([[5.0, 5, 10, 10]], dtype=torch.float64),
    )

    def v(box):
        return 4 / math.pi**2 * (math.atan(box[0, 2] / box[0, 3]) - math.pi / 4) ** 2

    alpha = v(a) / (1 - boxes.pairwise_iou(a, b).item() + v(a))
    leaf = a.clone().requires_grad_()
    boxes.pairwise_iou(leaf, b, "ciou").sum().backward()
    step = torch.tensor([[0, 0, 1e-6, 0]], dtype=torch.float64)
    slope = [boxes.pairwise_iou(a + k * step, b, "diou").item() - alpha * v(a + k * step) for k in (1, -1)]
    assert leaf.grad[0, 2].item() == pytest.approx((slope[0] - slope[1]) / 2e-6, rel=1e-5)


def test_nms_by_hand():
    xyxy = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6], [50, 50, 60, 60]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert boxes.nms(xyxy, scores).tolist() == [
        3,
        0,
        1,
    ]  # box 1 overlaps box 0 by exactly 0.5: not more, so it stays
    assert boxes.nms(xyxy, scores, torch.tensor([0, 0, 1, 0])).tolist() == [
        3,
        0,
        1,
        2,
    ]  # another class is left alone
    assert boxes.nms(xyxy, scores, iou_thres=0.49).tolist() == [3, 0]
    # a chain: 1 goes because of 0, so that 2, which only overlaps 1, stays
    chain = torch.tensor([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    assert boxes.nms(chain, torch.tensor([0.9, 0.8, 0.7])).tolist() == [0, 2]


def test_nms_of_none_one_and_ties():
    assert boxes.nms(torch.zeros(0, 4), torch.zeros(0)).tolist() == []
    assert boxes.nms(torch.zeros(1, 4), torch.zeros(1)).tolist() == [0]
    same = torch.tensor([[0.0, 0, 10, 10]]).repeat(5, 1)
    assert boxes.nms(same, torch.full((5,), 0.5)).tolist() == [0]  # ties: the lower index
    assert boxes.nms(same.bfloat16(), torch.full((5,), 0.5).bfloat16()).tolist() == [0]
    wild = torch.tensor([[-1e30, -1e30, 1e30, 1e30], [float("-inf")] * 2 + [float("inf")] * 2])
    assert boxes.nms(wild, torch.tensor([0.9, 0.8])).tolist() == [0, 1]
    with pytest.raises(RequestError, match="nms_kind: 'softnms'; one of default, greedynms, diounms"):
        boxes.nms(same, torch.ones(5), kind="softnms")


@pytest.mark.parametrize("kind", boxes.NMS_KINDS)
@pytest.mark.parametrize("plus_one", [False, True])
def test_nms_equals_the_loop(kind, plus_one):
    for seed in range(2):
        for dtype in (np.float32, np.float64):
            xyxy, scores, classes = candidates(seed, 300, classes=(3, 9)[seed], dtype=dtype)
            for thres in (0.0, 0.45, 0.9):
                want = greedy_loop(xyxy, scores, classes, thres, kind, 0.8, plus_one)
                assert boxes.nms(xyxy, scores, classes, thres, kind, 0.8, plus_one).tolist() == want


def test_nms_kinds_keep_more_than_plain_iou():
    xyxy, scores, classes = candidates(1, 400)
    plain, greedy = (len(boxes.nms(xyxy, scores, classes, 0.45, kind)) for kind in ("default", "greedynms"))
    assert greedy > plain
    same = [boxes.nms(xyxy, scores, classes, 0.45, kind, 0.6).tolist() for kind in ("diounms", "greedynms")]
    assert same[0] == same[1]


def test_thirty_thousand_candidates_need_no_square_matrix():
    xyxy, scores, classes = candidates(0, 30000, classes=5, size=2000.0, dtype=np.float32)
    tracemalloc.start()
    kept = boxes.nms(xyxy, scores, classes, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # 30,000^2 floats are 3.6 GB
    small = kept[:500].numpy()
    overlap = boxes.iou_matrix(xyxy[small], xyxy[small]) * (classes[small, None] == classes[small])
    assert (np.triu(overlap, 1) <= 0.5).all()
