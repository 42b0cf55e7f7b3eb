"""The slopes of the loss: against Darknet's deltas, against finite differences, and that they lead to the
truth.
"""

from __future__ import annotations

import math

import pytest
import torch
from test_training_loss import corners, iou_of, raw_maps, truths, two_heads

from darkslim.network.heads import decode
from darkslim.training.loss import DetectionLoss
from darkslim.training.optim import set_lr

COORDS = {"plain": ("scale_x_y=1.1\n", "linear"), "new": ("new_coords=1\nscale_x_y=2\n", "logistic")}


def test_new_coords_slopes():
    """Boxes as half the squared error of what the logistic convolution gives; objectness and classes p - t by
    its logit.
    """
    model = two_heads("new_coords=1\nscale_x_y=2\nignore_thresh=1", "logistic")
    logits = raw_maps()
    raws = [r.sigmoid() for r in logits]
    row = torch.tensor([[0, 1, 0.30, 0.55, 37 / 96, 58 / 64]])
    for r in raws:
        r.retain_grad()
    total, _ = DetectionLoss(model.heads)(raws, row, (64, 96))
    total.backward()
    cell, grad = raws[0].detach()[0, 0, 2, 1], raws[0].grad[0, 0, 2, 1] * 3
    weight = 0.75 * (2 - 37 / 96 * 58 / 64)
    assert grad[0] == pytest.approx(float(weight * (2 * cell[0] - 0.5 - 0.8)), abs=1e-5)
    assert grad[2] == pytest.approx(float(weight * (cell[2] - 0.5)), abs=1e-5)
    slope = logits[0].grad[0, 0, 2, 1, 4:] * 3
    assert torch.allclose(slope, cell[4:] - torch.tensor([1.0, 0, 1, 0]), atol=1e-5)
    assert torch.allclose(logits[1].grad[..., 4] * 3, raws[1].detach()[..., 4], atol=1e-5)


@pytest.mark.parametrize("logit", [-30.0, -12.0, 2.0, 12.0])
def test_new_coords_that_are_sure_and_wrong_are_corrected(logit):
    """The slope by the logit is p - t as long as the right answer has at least the probability 1e-5, then it
    fades; nothing is infinite.
    """
    model = two_heads("new_coords=1\nscale_x_y=2\nignore_thresh=1", "logistic")
    logits = [torch.full_like(r, logit).requires_grad_() for r in raw_maps()]
    row = torch.tensor([[0, 1, 0.30, 0.55, 37 / 96, 58 / 64]])
    total, _ = DetectionLoss(model.heads)([r.sigmoid() for r in logits], row, (64, 96))
    total.backward()
    assert math.isfinite(float(total.detach())) and all(bool(torch.isfinite(r.grad).all()) for r in logits)
    p = 1 / (1 + math.exp(-logit))
    for slope, target in zip(logits[0].grad[0, 0, 2, 1, 4:].tolist(), [1, 0, 1, 0], strict=True):
        right = p if target else 1 - p
        assert slope * 3 == pytest.approx((p - target) * min(1, right / 1e-5), rel=0.01)


@pytest.mark.parametrize("coords", COORDS)
def test_slopes_are_those_of_the_value(coords):
    """Central differences in float64: along random directions, and along each value of a cell that has a
    truth.
    """
    extra, activation = COORDS[coords]
    model = two_heads(
        extra + "ignore_thresh=.3\nlabel_smooth_eps=.1\ncls_normalizer=.5\nobj_normalizer=4", activation
    )
    loss, rows, g = DetectionLoss(model.heads), truths(14).double(), torch.Generator().manual_seed(5)
    raws = [r.detach().double() for r in raw_maps()]
    raws = [(r.sigmoid() if activation == "logistic" else r).requires_grad_() for r in raws]

    def value(maps):
        return loss(maps, rows, (64, 96))[0]

    total = value(raws)
    assert total.dtype == torch.float64
    slopes = torch.autograd.grad(total, raws)
    positive = (slopes[1][..., 0] != 0).nonzero()[0].tolist()
    directions = [[torch.randn(r.shape, generator=g, dtype=torch.float64) for r in raws] for _ in range(8)]
    for k in range(8):
        one = [torch.zeros_like(r) for r in raws]
        one[1][tuple(positive)][k] = 1
        directions.append(one)
    step = 1e-6
    for direction in directions:
        ahead, behind = (
            value([r.detach() + sign * step * d for r, d in zip(raws, direction, strict=True)])
            for sign in (1, -1)
        )
        expected = sum(float((s * d).sum()) for s, d in zip(slopes, direction, strict=True))
        assert float(ahead - behind) / (2 * step) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def iou_by_hand(pred, truth, kind: str, alpha: float | None = None) -> tuple[float, float]:
    """IoU, GIoU, DIoU or CIoU (Zheng 2020, section 3) in plain floats, and CIoU's weight alpha, which may be
    given.
    """
    iou = iou_of(pred, truth)
    if kind == "iou":
        return iou, 0.0
    a, b = corners(*pred), corners(*truth)
    width, height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "giou":
        union = (pred[2] * pred[3] + truth[2] * truth[3]) / (1 + iou)
        return iou - (width * height - union) / (width * height), 0.0
    diou = iou - ((pred[0] - truth[0]) ** 2 + (pred[1] - truth[1]) ** 2) / (width**2 + height**2)
    v = 4 / math.pi**2 * (math.atan(truth[2] / truth[3]) - math.atan(pred[2] / pred[3])) ** 2
    alpha = v / (1 - iou + v) if alpha is None else alpha
    return (diou - alpha * v if kind == "ciou" else diou), alpha


@pytest.mark.parametrize("coords", COORDS)
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_iou_loss_slopes(kind, coords):
    """Value and slopes against plain floats: d IoU by the box as a fraction of the input (central
    differences, alpha held), times exp(raw) for the width and height of plain heads: what Darknet hands
    back.
    """
    extra, activation = COORDS[coords]
    model = two_heads(f"{extra}iou_loss={kind}\niou_normalizer=.3\nignore_thresh=1", activation)
    raws = [r.detach().double() for r in raw_maps()]
    raws = [(r.sigmoid() if activation == "logistic" else r).requires_grad_() for r in raws]
    truth = (0.30, 0.55, 37 / 96, 58 / 64)
    total, parts = DetectionLoss(model.heads)(
        raws, torch.tensor([[1, 2, *truth]], dtype=torch.float64), (64, 96)
    )
    total.backward()
    x, y, w, h = raws[0].detach()[1, 0, 2, 1, :4].tolist()
    if activation == "logistic":
        pred, factors = (
            [(2 * x - 0.5 + 1) / 6, (2 * y - 0.5 + 2) / 4, 4 * w * w * 37 / 96, 4 * h * h * 58 / 64],
            [1, 1, 1, 1],
        )
    else:
        x, y = (1.1 / (1 + math.exp(-v)) - 0.05 for v in (x, y))
        pred, factors = (
            [(x + 1) / 6, (y + 2) / 4, math.exp(w) * 37 / 96, math.exp(h) * 58 / 64],
            [1, 1, math.exp(w), math.exp(h)],
        )
    value, alpha = iou_by_hand(pred, truth, kind)
    assert 0.1 < iou_of(pred, truth) < 0.9
    assert float(parts["box"]) == pytest.approx(0.3 * (1 - value) / 3, rel=1e-6)
    for k in range(4):
        ahead, behind = (
            iou_by_hand([p + sign * 1e-6 * (i == k) for i, p in enumerate(pred)], truth, kind, alpha)[0]
            for sign in (1, -1)
        )
        expected = -0.3 * (ahead - behind) / 2e-6 * factors[k] / 3
        assert float(raws[0].grad[1, 0, 2, 1, k]) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("coords", COORDS)
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_iou_losses_pull_the_box_onto_the_truth(kind, coords):
    extra, activation = COORDS[coords]
    model = two_heads(f"{extra}iou_loss={kind}\niou_normalizer=1\nignore_thresh=1", activation)
    logits, truth = raw_maps(), torch.tensor([0.30, 0.55, 37 / 96, 58 / 64])
    loss, optimizer = DetectionLoss(model.heads), torch.optim.SGD(logits, lr=0.0, momentum=0.5)
    for left in range(300, 0, -1):  # 1 - IoU has a kink at its end: only smaller steps settle there
        set_lr(optimizer, 0.2 * left / 300)
        optimizer.zero_grad()
        raws = [r.sigmoid() for r in logits] if activation == "logistic" else logits
        total, parts = loss(raws, torch.cat([torch.tensor([1.0, 2]), truth])[None], (64, 96))
        total.backward()
        optimizer.step()
    assert float(parts["box"]) < 0.02
    with torch.no_grad():
        raw = logits[0].sigmoid() if activation == "logistic" else logits[0]
        found = decode(raw, model.heads[0], (64, 96))[1, 2 * 6 + 1]  # anchor 0, row 2, column 1
    assert torch.allclose(found[:4] / torch.tensor([96, 64, 96, 64.0]), truth, atol=0.02)


def test_iou_loss_slope_is_darknets():
    """The IoU of a box that differs in x alone: Darknet hands d IoU / d x (relative) to the raw x
    unchanged.
    """
    model = two_heads("iou_loss=iou\niou_normalizer=.07\nignore_thresh=1")
    raws = [torch.zeros_like(r).requires_grad_() for r in raw_maps()]
    w, h = 37 / 96, 58 / 64
    row = torch.tensor(
        [[1, 2, (1.5 / 6) + 0.03, 2.5 / 4, w, h]]
    )  # the prediction's centre lies at (1.5 / 6, 2.5 / 4)
    total, _ = DetectionLoss(model.heads)(raws, row, (64, 96))
    total.backward()
    # IoU = (w - d) / (w + d) with d = 0.03 -> d IoU / d d = -2 w / (w + d)^2, and x to the right lowers d
    assert raws[0].grad[1, 0, 2, 1, 0] == pytest.approx(-0.07 * 2 * w / (w + 0.03) ** 2 / 3, rel=1e-3)
