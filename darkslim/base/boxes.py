"""Boxes: formats, the IoU family, non-maximum suppression.

Two formats, both in any unit as long as it is the same for all boxes of a call:
`xyxy` = left, top, right, bottom; `xywh` = centre x, centre y, width, height.

Sources
    GIoU          Rezatofighi et al. 2019, "Generalized Intersection over Union", arXiv 1902.09630
    DIoU, CIoU    Zheng et al. 2020, "Distance-IoU Loss", arXiv 1911.08287 (NMS with DIoU is section 3.4)
    block-wise greedy NMS decided by iterating to the fixed point
                  Zheng et al. 2020, "Enhancing Geometric Factors ..." (Cluster-NMS), arXiv 2005.03572
    NMS kinds     Darknet (AlexeyAB), src/box.c: do_nms_sort, diounms_sort, box_diou, box_diounms
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .errors import RequestError

NMS_KINDS = ("default", "greedynms", "diounms")
_EPS = 1e-16  # the reference's: keeps the quotient of two empty boxes at 0
# boxes decided at a time by `nms`: large enough to hide the calls, small enough to stay in the cache
_BLOCK = 96
_LATER = np.triu(np.ones((_BLOCK, _BLOCK), bool), 1)
_SLACK = 1e-5  # far above the rounding of a float32 IoU


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


def _iou(x1, y1, x2, y2, u1, v1, u2, v2, plus_one: bool):
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
    return _iou(*(a[:, None, k] for k in range(4)), *(b[None, :, k] for k in range(4)), plus_one)


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


def nms(
    boxes,
    scores,
    classes=None,
    iou_thres: float = 0.5,
    kind: str = "default",
    beta: float = 0.6,
    plus_one: bool = False,
) -> torch.Tensor:
    """Greedy non-maximum suppression within each class: the exact result of the box-by-box loop, without the
    loop.

    In descending score (ties: lower index first) a box is kept unless its overlap with a kept box of its
    class is *greater than* `iou_thres`; an overlap equal to it suppresses nothing, as in Darknet and in the
    reference. Boxes are decided a block at a time: first among themselves, then what is kept is compared with
    the rest, so no N x N matrix exists and 30,000 candidates take a few MB.

    Args:
        boxes: tensor or array (N, 4), xyxy.
        scores: (N,).
        classes: (N,) whole numbers, or None for a single class.
        iou_thres: 0..1.
        kind: what overlap means. "default": IoU; "greedynms": IoU - (d^2 / c^2)^0.6; "diounms": IoU - (d^2 /
            c^2)^beta, with d the distance of the centres and c the diagonal of the smallest box around both.
        beta: Darknet's beta_nms.
        plus_one: as in `iou_matrix`.

    Returns:
        int64 tensor on the device of `boxes` (CPU for arrays): indices of the kept boxes in descending score.

    Raises:
        RequestError: an unknown kind.
    """
    device = boxes.device if isinstance(boxes, torch.Tensor) else None
    power = nms_power(kind, beta)
    boxes, scores = _array(boxes), _array(scores)
    if boxes.dtype not in (np.float32, np.float64):
        boxes = boxes.astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    group = np.zeros(len(order), np.int64) if classes is None else _array(classes)[order]
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a network gone wild makes infinite boxes: they overlap nothing
        kept = order[_greedy(boxes[order], group, float(iou_thres), power, plus_one)]
    return torch.as_tensor(kept, device=device)


def nms_power(kind: str, beta: float = 0.6) -> float | None:
    """The exponent of (d^2 / c^2) that an NMS kind subtracts from the IoU; None: plain IoU.

    Raises:
        RequestError: an unknown kind.
    """
    if kind not in NMS_KINDS:
        raise RequestError("nms_kind", repr(kind), "one of " + ", ".join(NMS_KINDS))
    return {"default": None, "greedynms": 0.6, "diounms": float(beta)}[kind]


def _array(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def _greedy(
    boxes: np.ndarray, group: np.ndarray, thres: float, power: float | None, plus_one: bool
) -> np.ndarray:
    """Positions of the kept boxes; `boxes` (N, 4) xyxy stand in descending score, `group` (N,) is their
    class.
    """
    columns = np.concatenate(
        (boxes.T, _needed(boxes, thres, plus_one)[None])
    )  # (5, N): each row lies in one piece
    labels = np.unique(group)
    if len(labels) < 2:
        return _greedy_blocks(columns, None, thres, power, plus_one)
    if len(labels) * _BLOCK > len(group):
        return _greedy_blocks(columns, group, thres, power, plus_one)
    members = [
        np.flatnonzero(group == label) for label in labels
    ]  # a few classes, each with many boxes: one at a time
    return np.sort(
        np.concatenate([m[_greedy_blocks(columns[:, m], None, thres, power, plus_one)] for m in members])
    )


def _greedy_blocks(columns: np.ndarray, group: np.ndarray | None, thres, power, plus_one) -> np.ndarray:
    """The same for `columns` (5, N): left, top, right, bottom, `_needed`; `group` None: all are of one
    class.
    """
    rest, kept = np.arange(columns.shape[1]), []
    while len(rest):
        cell, tail = columns[:, :_BLOCK], columns[:, _BLOCK:]
        hit = _overlapping(cell, cell, thres, power, plus_one) & _LATER[: cell.shape[1], : cell.shape[1]]
        if group is not None:
            hit &= group[:_BLOCK, None] == group[:_BLOCK]
        alive = _fixed_point(hit)
        kept.append(rest[:_BLOCK][alive])
        if not tail.shape[1]:
            break
        hit = _overlapping(cell[:, alive], tail, thres, power, plus_one)
        if group is not None:
            hit &= group[:_BLOCK][alive, None] == group[_BLOCK:]
        left = ~hit.any(0)
        rest, columns, group = (
            rest[_BLOCK:][left],
            tail[:, left],
            None if group is None else group[_BLOCK:][left],
        )
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)


def _needed(boxes: np.ndarray, thres: float, plus_one: bool) -> np.ndarray:
    """thres / (1 + thres) * area, a shade less: IoU > thres asks for an intersection above the sum of two of
    these.

    Infinite for a box without an area, which overlaps nothing.
    """
    width, height = boxes[:, 2] - boxes[:, 0] + float(plus_one), boxes[:, 3] - boxes[:, 1] + float(plus_one)
    return np.where(
        (width > 0) & (height > 0), width * height * (thres / (1 + thres) * (1 - _SLACK)), np.inf
    ).astype(boxes.dtype)


def _overlapping(
    a: np.ndarray, b: np.ndarray, thres: float, power: float | None, plus_one: bool
) -> np.ndarray:
    """Whether a box of `a` (5, N) overlaps one of `b` (5, M) by more than `thres`: bool (N, M).

    Nearly all pairs are decided without a division; for those too close to call (and for all that may pass,
    if the overlap is not plain IoU) the overlap itself is worked out, in exactly the arithmetic of
    `iou_matrix`.
    """
    inter, height = size = _extents(a, b)
    if plus_one:
        size += 1
    np.maximum(inter, np.zeros_like(b[0]), out=inter)
    inter *= height
    needed = np.add(a[4, :, None], b[4], out=height)
    hit = inter > needed
    close = np.flatnonzero(hit)
    if power is None:
        close = close[inter.reshape(-1)[close] <= needed.reshape(-1)[close] * (1 + 4 * _SLACK)]
    if len(close):
        row, col = np.divmod(close, hit.shape[1])
        p, q = a[:4, row], b[:4, col]
        overlap = _iou(*p, *q, plus_one)
        hit[row, col] = (overlap if power is None else overlap - _centre_term(p, q, power)) > thres
    return hit


def _extents(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Width and height (2, N, M) of the intersection of each box with each; negative where they are apart.

    The columns are spread out first: numpy's minimum is quick (SIMD) for two arrays, several times slower for
    one number and an array, which is what a broadcast column comes down to.
    """
    high = np.empty((2, a.shape[1], b.shape[1]), a.dtype)
    low = np.empty_like(high)
    high[:], low[:] = a[2:4, :, None], a[:2, :, None]
    np.minimum(high, b[2:4, None], out=high)
    np.maximum(low, b[:2, None], out=low)
    high -= low
    return high


def _centre_term(p: np.ndarray, q: np.ndarray, power: float) -> np.ndarray:
    """(d^2 / c^2)^power of boxes p, q (4, K) xyxy; 0 where both are the same point (Darknet: box_diounms)."""
    distance = ((p[0] + p[2] - q[0] - q[2]) / 2) ** 2 + ((p[1] + p[3] - q[1] - q[3]) / 2) ** 2
    width, height = (
        np.maximum(p[2], q[2]) - np.minimum(p[0], q[0]),
        np.maximum(p[3], q[3]) - np.minimum(p[1], q[1]),
    )
    diagonal = width**2 + height**2
    return np.divide(distance, diagonal, out=np.zeros_like(distance), where=diagonal > 0) ** power


def _fixed_point(hit: np.ndarray) -> np.ndarray:
    """Which boxes greedy NMS keeps: bool (N,). `hit` (N, N), above the diagonal: the earlier overlaps the
    later.

    A box stays unless an earlier one that stays overlaps it. After k rounds the first k links of every chain
    of such pairs are settled, so the rounds end at the longest chain: a handful.
    """
    row, col = np.divmod(np.flatnonzero(hit), len(hit) or 1)  # quicker than nonzero of a matrix
    alive = np.ones(len(hit), bool)
    while len(row):
        now = np.ones(len(hit), bool)
        now[col[alive[row]]] = False
        if (now == alive).all():
            break
        alive = now
    return alive
