"""Boxes: formats and the IoU family.

Two formats, both in any unit as long as it is the same for all boxes of a call:
`xyxy` = left, top, right, bottom; `xywh` = centre x, centre y, width, height.

Sources
    GIoU          Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv 1902.09630
    DIoU, CIoU    Zheng et al. 2020, "Distance-IoU Loss", arXiv 1911.08287
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .errors import RequestError

_EPS = 1e-16  # the reference's: keeps the quotient of two empty boxes at 0


def _library(array):
    """torch or numpy, so that a formula stands here once; both call minimum and maximum the same."""
    return torch if isinstance(array, torch.Tensor) else np


def xywh_to_xyxy(boxes):
    """Centre x, centre y, width, height -> left, top, right, bottom.

    Args:
        boxes: tensor or array (..., 4), xywh.

    Returns:
        the same kind and shape, xyxy. `xyxy_to_xywh` is the inverse.
    """
    centre, half = boxes[..., 0:2], boxes[..., 2:4] / 2
    return _join(centre - half, centre + half)


def xyxy_to_xywh(boxes):
    """Left, top, right, bottom -> centre x, centre y, width, height.

    Args:
        boxes: tensor or array (..., 4), xyxy.

    Returns:
        the same kind and shape, xywh. `xywh_to_xyxy` is the inverse.
    """
    low, high = boxes[..., 0:2], boxes[..., 2:4]
    return _join((low + high) / 2, high - low)


def _join(left, right):
    return (
        torch.cat((left, right), -1) if isinstance(left, torch.Tensor) else np.concatenate((left, right), -1)
    )


def iou(x1, y1, x2, y2, u1, v1, u2, v2, plus_one: bool):
    """IoU of boxes given by their coordinates, arrays that broadcast. The one place where it is worked
    out.
    """
    xp, one = _library(x1), float(plus_one)
    width = (xp.minimum(x2, u2) - xp.maximum(x1, u1) + one).clip(min=0)
    inter = width * (xp.minimum(y2, v2) - xp.maximum(y1, v1) + one).clip(min=0)
    union = (x2 - x1 + one) * (y2 - y1 + one) + (u2 - u1 + one) * (v2 - v1 + one) - inter
    return inter / (union + _EPS)


def iou_matrix(a, b, plus_one: bool = False):
    """IoU of every box of `a` with every box of `b`.

    Args:
        a: tensor or array (N, 4), xyxy.
        b: the same kind (M, 4), xyxy.
        plus_one: count a box from pixel 3 to pixel 5 as three pixels wide, as the reference (Lam1360) does.

    Returns:
        (N, M), 0 where both boxes are empty.
    """
    return iou(*(a[:, None, k] for k in range(4)), *(b[None, :, k] for k in range(4)), plus_one)


def wh_iou(a, b):
    """IoU of boxes that share a centre, from their sizes alone (anchors).

    Args:
        a: tensor or array (N, 2), width and height.
        b: the same kind (M, 2).

    Returns:
        (N, M).
    """
    xp = _library(a)
    inter = xp.minimum(a[:, None, 0], b[None, :, 0]) * xp.minimum(a[:, None, 1], b[None, :, 1])
    return inter / (a[:, None, 0] * a[:, None, 1] + b[None, :, 0] * b[None, :, 1] - inter + _EPS)


def pairwise_iou(a: torch.Tensor, b: torch.Tensor, kind: str = "iou", eps: float = 1e-7) -> torch.Tensor:
    """IoU, GIoU, DIoU or CIoU of box i of `a` with box i of `b`; differentiable, finite for boxes of no area.

    With C the smallest box around both, d the distance of the centres and c the diagonal of C:
    GIoU = IoU - (|C| - |union|) / |C|; DIoU = IoU - d^2 / c^2; CIoU = DIoU - alpha v, where
    v = 4 / pi^2 (atan(w_a / h_a) - atan(w_b / h_b))^2 and alpha = v / (1 - IoU + v) is a weight that is not
    differentiated through (Zheng 2020, section 3.3).

    Args:
        a: tensor (..., 4), xywh.
        b: tensor (..., 4), xywh.
        kind: "iou", "giou", "diou" or "ciou".
        eps: added to the denominators.

    Returns:
        tensor (...): IoU in 0..1, GIoU and DIoU in -1..1, CIoU down to -2.

    Raises:
        RequestError: an unknown kind.
    """
    if kind not in ("iou", "giou", "diou", "ciou"):
        raise RequestError("IoU", f"kind {kind!r}", "iou, giou, diou or ciou")
    (a_low, a_high), (b_low, b_high) = xywh_to_xyxy(a).split(2, -1), xywh_to_xyxy(b).split(2, -1)
    inter = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0).prod(-1)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter
    iou = inter / (union + eps)
    if kind == "iou":
        return iou
    around = torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)
    if kind == "giou":
        area = around.prod(-1)
        return iou - (area - union) / (area + eps)
    diou = iou - (a[..., :2] - b[..., :2]).square().sum(-1) / (around.square().sum(-1) + eps)
    if kind == "diou":
        return diou
    angle = torch.atan(a[..., 2] / (a[..., 3] + eps)) - torch.atan(b[..., 2] / (b[..., 3] + eps))
    v = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return diou - alpha * v
