"""Non-maximum suppression against the loop over boxes, and the grid that finds boxes near each other."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from darkslim.base import boxes, near_boxes, suppression
from darkslim.base.errors import RequestError
from darkslim.base.near_boxes import near_pairs
from darkslim.base.suppression import NMS_KINDS, nms


def greedy_loop(xyxy, scores, classes, thres, kind="default", beta=0.6, plus_one=False):
    """Box by box, each against those that were kept, with the textbook formula in the array's precision."""
    one = xyxy.dtype.type(plus_one)

    def overlaps(a, b):
        """Of boxes (n, 4) with one box."""
        (left, top, right, bottom), (x1, y1, x2, y2) = a.T, b
        w = np.maximum(np.minimum(right, x2) - np.maximum(left, x1) + one, 0)
        h = np.maximum(np.minimum(bottom, y2) - np.maximum(top, y1) + one, 0)
        union = (right - left + one) * (bottom - top + one) + (x2 - x1 + one) * (y2 - y1 + one) - w * h
        iou = w * h / (union + xyxy.dtype.type(1e-16))
        if kind == "default":
            return iou
        c2 = (np.maximum(right, x2) - np.minimum(left, x1)) ** 2
        c2 = c2 + (np.maximum(bottom, y2) - np.minimum(top, y1)) ** 2
        d2 = ((left + right - x1 - x2) / 2) ** 2 + ((top + bottom - y1 - y2) / 2) ** 2
        share = np.divide(d2, c2, out=np.zeros_like(d2), where=c2 > 0)
        return iou - share ** (0.6 if kind == "greedynms" else beta)

    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if classes[k] == classes[i]]
        if not rivals or not (overlaps(xyxy[rivals], xyxy[i]) > thres).any():
            kept.append(i)
    return kept


def candidates(seed, count, classes=3, size=100.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, size, (6, 2))[rng.integers(0, 6, count)] + rng.normal(0, 4, (count, 2))
    xywh = np.concatenate((centre, rng.uniform(5, 40, (count, 2))), 1).astype(dtype)
    scores = rng.integers(0, 50, count).astype(dtype) / 50  # many ties
    return boxes.xywh_to_xyxy(xywh), scores, rng.integers(0, classes, count)


def test_nms_by_hand():
    xyxy = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6], [50, 50, 60, 60]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert nms(xyxy, scores).tolist() == [
        3,
        0,
        1,
    ]  # box 1 overlaps box 0 by exactly 0.5: not more, so it stays
    assert nms(xyxy, scores, torch.tensor([0, 0, 1, 0])).tolist() == [
        3,
        0,
        1,
        2,
    ]  # another class is left alone
    assert nms(xyxy, scores, iou_thres=0.49).tolist() == [3, 0]
    # a chain: 1 goes because of 0, so that 2, which only overlaps 1, stays
    chain = torch.tensor([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    assert nms(chain, torch.tensor([0.9, 0.8, 0.7])).tolist() == [0, 2]


def test_nms_of_none_one_and_ties():
    assert nms(torch.zeros(0, 4), torch.zeros(0)).tolist() == []
    assert nms(torch.zeros(1, 4), torch.zeros(1)).tolist() == [0]
    same = torch.tensor([[0.0, 0, 10, 10]]).repeat(5, 1)
    assert nms(same, torch.full((5,), 0.5)).tolist() == [0]  # ties: the lower index
    assert nms(same.bfloat16(), torch.full((5,), 0.5).bfloat16()).tolist() == [0]
    wild = torch.tensor([[-1e30, -1e30, 1e30, 1e30], [float("-inf")] * 2 + [float("inf")] * 2])
    assert nms(wild, torch.tensor([0.9, 0.8])).tolist() == [0, 1]
    with pytest.raises(RequestError, match="nms_kind: 'softnms'; one of default, greedynms, diounms"):
        nms(same, torch.ones(5), kind="softnms")


@pytest.mark.parametrize("kind", NMS_KINDS)
@pytest.mark.parametrize("plus_one", [False, True])
def test_nms_equals_the_loop(kind, plus_one):
    for seed in range(2):
        for dtype in (np.float32, np.float64):
            xyxy, scores, classes = candidates(seed, 300, classes=(3, 9)[seed], dtype=dtype)
            for thres in (0.0, 0.45, 0.9):
                want = greedy_loop(xyxy, scores, classes, thres, kind, 0.8, plus_one)
                assert nms(xyxy, scores, classes, thres, kind, 0.8, plus_one).tolist() == want


def test_nms_kinds_keep_more_than_plain_iou():
    xyxy, scores, classes = candidates(1, 400)
    plain, greedy = (len(nms(xyxy, scores, classes, 0.45, kind)) for kind in ("default", "greedynms"))
    assert greedy > plain
    same = [nms(xyxy, scores, classes, 0.45, kind, 0.6).tolist() for kind in ("diounms", "greedynms")]
    assert same[0] == same[1]


def test_thirty_thousand_candidates_need_no_square_matrix():
    xyxy, scores, classes = candidates(0, 30000, classes=5, size=2000.0, dtype=np.float32)
    tracemalloc.start()
    kept = nms(xyxy, scores, classes, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # 30,000^2 floats are 3.6 GB
    small = kept[:500].numpy()
    overlap = boxes.iou_matrix(xyxy[small], xyxy[small]) * (classes[small, None] == classes[small])
    assert (np.triu(overlap, 1) <= 0.5).all()


def spread_out(seed, count, classes=3, dtype=np.float32):
    """Boxes of 2 to 200 pixels, some of them twice, some without an area, some not finite."""
    rng = np.random.default_rng(seed)
    xywh = np.concatenate((rng.uniform(0, 400, (count, 2)), 2 * 100 ** rng.uniform(0, 1, (count, 2))), 1)
    xywh[: count // 8] = xywh[count // 8 : 2 * (count // 8)]
    xywh[-3:, 2] = 0.0
    xyxy = boxes.xywh_to_xyxy(xywh.astype(dtype))
    xyxy[5], xyxy[6] = (-1e30, -1e30, 1e30, 1e30), (-np.inf, 0, np.inf, 10)
    return xyxy, rng.integers(0, 99, count).astype(dtype), rng.integers(0, classes, count)


@pytest.mark.parametrize("kind", NMS_KINDS)
@pytest.mark.parametrize("plus_one", [False, True])
def test_boxes_near_each_other_are_enough(monkeypatch, kind, plus_one):
    """By the grid, with all boxes behind the first block."""
    monkeypatch.setattr(suppression, "_MANY", 0)
    asked, real = [], suppression.near_pairs
    monkeypatch.setattr(suppression, "near_pairs", lambda *args: asked.append(real(*args)) or asked[-1])
    for seed, dtype in enumerate((np.float32, np.float64)):
        xyxy, scores, classes = spread_out(seed, 400, classes=(1, 7)[seed], dtype=dtype)
        for thres in (0.2, 0.45, 0.7, 0.8):
            with np.errstate(all="ignore"):  # the loop's own, of boxes that are not finite
                want = greedy_loop(xyxy, scores, classes, thres, kind, 0.8, plus_one)
            assert nms(xyxy, scores, classes, thres, kind, 0.8, plus_one).tolist() == want
    assert len(asked) == 8 and all(pairs is not None for pairs in asked)
    nms(xyxy, scores, classes, 0.1)
    nms(xyxy, scores, classes, 0.9)
    assert len(asked) == 8  # of no use there


@pytest.mark.parametrize("thres", [0.2, 0.3, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("far", [0.0, 1e5])
def test_no_pair_that_overlaps_is_missed_and_none_is_found_twice(thres, far):
    for seed in range(4):
        xyxy, _, classes = spread_out(seed, 600, dtype=np.float64)
        xyxy = xyxy + far
        with np.errstate(all="ignore"):
            overlap = np.nan_to_num(boxes.iou_matrix(xyxy, xyxy))
            needed = suppression._needed(xyxy, thres, False)
        same = classes[:, None] == classes
        want = np.argwhere(np.triu((overlap > thres) & same, 1))
        earlier, later = near_pairs(np.concatenate((xyxy.T, needed[None])), classes, thres, False)
        found = set(zip(earlier.tolist(), later.tolist(), strict=True))
        assert len(found) == len(earlier) and set(map(tuple, want.tolist())) <= found
        assert all(i < j and classes[i] == classes[j] for i, j in found)
        assert len(found) < 1.2 * len(want) + 5  # and hardly others


def test_boxes_on_end_are_found_across_rows_octaves_and_cells():
    """A box and the same one moved, larger and smaller, by nearly as much as leaves the overlap above .5."""
    rng = np.random.default_rng(0)
    one = np.concatenate((rng.uniform(0, 300, (300, 2)), 10 * 8 ** rng.uniform(0, 1, (300, 2))), 1)
    moved = []
    for move, scale in ((0.32, 1), (-0.32, 1), (0, 0.72), (0, 1.4)):
        other = one.copy()
        other[:, 0] += move * one[:, 2] * (rng.random(300) < 0.5)
        same = other[:, 0] == one[:, 0]
        other[same, 1] += move * one[same, 3]
        other[:, 2:] *= scale
        moved.append(other)
    for other in moved:
        xyxy = boxes.xywh_to_xyxy(np.concatenate((one, other)))
        assert (boxes.pairwise_iou(torch.from_numpy(one), torch.from_numpy(other)) > 0.5).all()
        group = np.tile(np.arange(300), 2)  # each pair a class of its own
        earlier, later = near_pairs(
            np.concatenate((xyxy.T, suppression._needed(xyxy, 0.5, False)[None])), group, 0.5, False
        )
        assert sorted(zip(earlier.tolist(), later.tolist(), strict=True)) == [
            (i, i + 300) for i in range(300)
        ]


def test_a_crowd_is_decided_by_blocks(monkeypatch):
    monkeypatch.setattr(suppression, "_MANY", 0)
    monkeypatch.setattr(near_boxes, "_CROWD", 2)
    xyxy, scores, classes = candidates(0, 500)
    columns = np.concatenate((xyxy.T, suppression._needed(xyxy, 0.5, False)[None]))
    assert near_pairs(columns, classes, 0.5, False) is None
    assert nms(xyxy, scores, classes, 0.5).tolist() == greedy_loop(xyxy, scores, classes, 0.5)


def test_an_untrained_network_s_boxes_need_no_square_matrix():
    xyxy, scores, classes = spread_out(0, 10000, classes=1)
    tracemalloc.start()
    kept = nms(xyxy, scores, classes, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20 and 2000 < len(kept) < 9000
