"""Anchors by k-means on 1 - IoU."""

from __future__ import annotations

import numpy as np
import pytest

from darkslim.base.boxes import wh_iou
from darkslim.base.errors import RequestError
from darkslim.data.anchors import find_anchors, shape_iou


def test_iou_by_hand_and_against_the_other_implementation():
    import torch

    a, b = np.array([[10.0, 20.0], [4.0, 4.0]]), np.array([[20.0, 10.0], [4.0, 4.0], [10.0, 20.0]])
    np.testing.assert_allclose(shape_iou(a, b), [[100 / 300, 16 / 200, 1], [16 / 200, 1, 16 / 200]])
    np.testing.assert_allclose(shape_iou(a, b), wh_iou(torch.tensor(a), torch.tensor(b)).numpy(), rtol=1e-6)


def test_clusters_that_are_there_are_found():
    rng = np.random.default_rng(0)
    centres = np.array([[10, 14], [33, 60], [120, 90], [300, 350]])
    sizes = np.concatenate([c * rng.uniform(0.9, 1.1, (50, 2)) for c in centres])
    found = find_anchors(sizes, 4, seed=1)
    assert abs(found.sizes / centres - 1).max() < 0.1 and found.mean_iou > 0.88
    assert found.line == "anchors=" + ",".join(str(v) for v in found.sizes.ravel())


def test_the_same_seed_gives_the_same_anchors_and_more_are_better():
    sizes = np.random.default_rng(0).lognormal(3.5, 0.8, (400, 2))
    assert find_anchors(sizes, 6, 3).line == find_anchors(sizes, 6, 3).line
    ious = [find_anchors(sizes, k).mean_iou for k in (1, 3, 9)]
    assert ious == sorted(ious)
    areas = find_anchors(sizes, 9).sizes.prod(1)
    assert (np.diff(areas) >= 0).all()


def test_as_many_anchors_as_boxes_fit_exactly():
    sizes = np.array([[10, 20], [30, 30], [30, 30], [50, 10]])
    found = find_anchors(sizes, 3)
    assert found.mean_iou == 1 and sorted(map(tuple, found.sizes)) == [(10, 20), (30, 30), (50, 10)]


@pytest.mark.parametrize("k", [0, 4])
def test_more_anchors_than_boxes(k):
    with pytest.raises(RequestError, match=f"{k} anchors from 3 different box sizes"):
        find_anchors(np.array([[10, 20], [30, 30], [30, 30], [50, 10]]), k)
