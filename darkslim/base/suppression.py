"""Non-maximum suppression: the exact result of the greedy loop over boxes, without the loop.

Sources
    block-wise greedy NMS decided by iterating to the fixed point
                  Zheng et al. 2020, "Enhancing Geometric Factors ..." (Cluster-NMS), arXiv 2005.03572
    NMS kinds     Darknet (AlexeyAB), src/box.c: do_nms_sort, diounms_sort, box_diou, box_diounms
"""

from __future__ import annotations

import numpy as np
import torch

from .boxes import iou
from .errors import RequestError
from .near_boxes import LEAST, near_pairs

NMS_KINDS = ("default", "greedynms", "diounms")
# boxes decided at a time, and with how many they are compared at once: large enough to hide the calls, small
# enough to stay in the cache
_BLOCK, _TILE = 96, 1024
_LATER = np.triu(np.ones((_BLOCK, _BLOCK), bool), 1)
_SLACK = 1e-5  # far above the rounding of a float32 IoU
_MANY = 1500  # boxes, left by the strongest block, of which only those near each other are looked at


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
    the rest. Where the strongest leave many boxes that hardly overlap (a network at a low threshold, an
    untrained one), the rest is decided by the pairs that are near each other. So no N x N matrix exists and
    30,000 candidates take a few MB.

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
        if len(kept) == 1 and len(rest) > _MANY and LEAST <= thres <= 1 - LEAST:
            alive = _greedy_near(columns, group, thres, power, plus_one)
            if alive is not None:
                kept.append(rest[alive])
                break
        cell, tail = columns[:, :_BLOCK], columns[:, _BLOCK:]
        hit = _overlapping(cell, cell, thres, power, plus_one) & _LATER[: cell.shape[1], : cell.shape[1]]
        if group is not None:
            hit &= group[:_BLOCK, None] == group[:_BLOCK]
        row, col = np.divmod(np.flatnonzero(hit), len(hit))  # quicker than nonzero of a matrix
        alive = _fixed_point(row, col, len(hit))
        kept.append(rest[:_BLOCK][alive])
        left = np.ones(tail.shape[1], bool)
        for at in range(0, tail.shape[1], _TILE):
            some = slice(at, at + _TILE)
            hit = _overlapping(cell[:, alive], tail[:, some], thres, power, plus_one)
            if group is not None:
                hit &= group[:_BLOCK][alive, None] == group[_BLOCK:][some]
            left[some] = ~hit.any(0)
        rest, columns = rest[_BLOCK:][left], tail[:, left]
        group = None if group is None else group[_BLOCK:][left]
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)


def _greedy_near(columns: np.ndarray, group: np.ndarray | None, thres, power, plus_one) -> np.ndarray | None:
    """Which of `columns` are kept: bool (N,). None where too many are near each other."""
    pairs = near_pairs(columns, group, thres, plus_one)
    if pairs is None:
        return None
    earlier, later = pairs
    p, q = columns[:4, earlier], columns[:4, later]
    hit = _overlap(p, q, power, plus_one) > thres
    return _fixed_point(earlier[hit], later[hit], columns.shape[1])


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
        hit[row, col] = _overlap(p, q, power, plus_one) > thres
    return hit


def _overlap(p: np.ndarray, q: np.ndarray, power: float | None, plus_one: bool) -> np.ndarray:
    """Of boxes p, q (4, K) xyxy, in exactly the arithmetic of `iou_matrix`."""
    overlap = iou(*p, *q, plus_one)
    return overlap if power is None else overlap - _centre_term(p, q, power)


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


def _fixed_point(earlier: np.ndarray, later: np.ndarray, count: int) -> np.ndarray:
    """Which boxes greedy NMS keeps: bool (count,); of each pair the earlier overlaps the later.

    A box stays unless an earlier one that stays overlaps it. After k rounds the first k links of every chain
    of such pairs are settled, so the rounds end at the longest chain: a handful.
    """
    alive = np.ones(count, bool)
    while len(earlier):
        now = np.ones(count, bool)
        now[later[alive[earlier]]] = False
        if (now == alive).all():
            break
        alive = now
    return alive
