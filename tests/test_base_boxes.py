"""Box formats, the IoU family against numbers worked out by hand, NMS against the loop that it replaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from darkslim.base import boxes
from darkslim.base.errors import RequestError


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
