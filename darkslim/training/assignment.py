"""Which predicted box must find which truth, and which are near enough to one to be no background.

Darknet's rule (AlexeyAB, src/yolo_layer.c): a truth belongs to the cell that its centre lies in, and to the
best of all anchors by the IoU of their sizes. No loop over boxes, cells or images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import boxes

PAIRS = 1 << 22  # predicted boxes x truths looked at together: bounds the memory of the ignore mask
TINY = 1e-9


@dataclass(frozen=True)
class Positives:
    """Cells that must find a truth; one entry for every (truth, anchor) pair.

    Attributes:
        row: (P,) row of the truth in the targets.
        where: image, anchor (of this head), row and column of the cell, four (P,) tensors.
    """

    row: Tensor
    where: tuple[Tensor, Tensor, Tensor, Tensor]

    def take(self, keep: Tensor) -> Positives:
        return Positives(self.row[keep], tuple(w[keep] for w in self.where))


def anchors_of(head, device, every: bool = False) -> Tensor:
    """(M, 2) anchors of the head in pixels, or all (num, 2)."""
    return torch.as_tensor(head.all_anchors if every else head.anchors, dtype=torch.float32, device=device)


def assign(head, targets: Tensor, shape, img_size) -> Positives:
    """Each truth goes to the best of *all* anchors by the IoU of their sizes, if that anchor is in the head's
    mask; `iou_thresh` below 1 adds every anchor of the head above it."""
    height, width = img_size
    size = targets[:, 4:6] * targets.new_tensor([width, height])
    iou = boxes.wh_iou(size, anchors_of(head, targets.device, every=True))
    wanted = F.one_hot(iou.argmax(1), iou.shape[1]).bool()
    threshold = head.opts.get("iou_thresh", 1.0)
    if threshold < 1:
        wanted |= iou > threshold
    mask = torch.as_tensor(list(head.mask), device=targets.device)
    row, anchor = wanted[:, mask].nonzero(as_tuple=True)
    grid_h, grid_w = shape[2:4]
    column = (targets[row, 2] * grid_w).long().clamp(0, grid_w - 1)
    line = (targets[row, 3] * grid_h).long().clamp(0, grid_h - 1)
    return Positives(row, (targets[row, 0].long(), anchor, line, column))


def found(hit: Tensor, nearest: Tensor, rows: Tensor) -> Positives:
    """Positives from the predicted boxes in `hit` (B, M, H, W), each with its nearest truth; `rows` (B, T)
    from `pad_truths`.
    """
    where = hit.nonzero(as_tuple=True)
    return Positives(rows[where[0], nearest[where]], where)


def join(a: Positives, b: Positives) -> Positives:
    """Both lists; those of `b` come first, so that a truth's own anchor wins over a chance overlap."""
    return Positives(
        torch.cat([b.row, a.row]), tuple(torch.cat(pair) for pair in zip(b.where, a.where, strict=True))
    )


def last_claims(positives: Positives, shape) -> tuple[Tensor, Tensor]:
    """Indices of the last claim on each claimed cell, and for every positive the position of its cell among
    them.
    """
    image, anchor, row, column = positives.where
    key = ((image * shape[1] + anchor) * shape[2] + row) * shape[3] + column
    cells, group = torch.unique(key, return_inverse=True)
    order = torch.arange(len(key), device=key.device)
    last = torch.zeros_like(cells).scatter_reduce(0, group, order, "amax")
    return last, group


def pad_truths(targets: Tensor, batch: int, img_size) -> tuple[Tensor, Tensor]:
    """Truths as (B, T, 4) corner boxes in pixels (absent: empty boxes at the origin) and their rows in
    `targets` (B, T).
    """
    height, width = img_size
    image = targets[:, 0].long()
    order = torch.argsort(image, stable=True)
    counts = torch.bincount(image, minlength=batch)
    start = counts.cumsum(0) - counts
    place = torch.arange(len(targets), device=targets.device) - start[image[order]]
    most = int(counts.max()) if len(targets) else 0
    rows = torch.zeros(batch, most, dtype=torch.long, device=targets.device)
    rows[image[order], place] = order
    padded = targets.new_zeros(batch, most, 4)
    padded[image[order], place] = boxes.xywh_to_xyxy(
        targets[order, 2:6] * targets.new_tensor([width, height, width, height])
    )
    return padded, rows


@torch.no_grad()
def best_overlap(pred: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """The best IoU of each predicted box with the truths of its image, and which truth that is.

    Args:
        pred: (B, M, H, W, 4) centre and size in pixels. truths: (B, T, 4) corners in pixels.

    Returns:
        (B, M, H, W) IoU (0 without truths) and (B, M, H, W) index along T. At most PAIRS pairs are in memory
        at once.
    """
    shape = pred.shape[:-1]
    corners = boxes.xywh_to_xyxy(pred.reshape(shape[0], -1, 4)).unsqueeze(2)
    best = corners.new_zeros(corners.shape[:2])
    index = torch.zeros_like(best, dtype=torch.long)
    step = max(1, PAIRS // max(1, best.numel()))
    for start in range(0, truths.shape[1], step):
        some = truths[:, None, start : start + step]
        low = torch.maximum(corners[..., :2], some[..., :2])
        inside = (torch.minimum(corners[..., 2:], some[..., 2:]) - low).clamp_(min=0).prod(-1)
        union = area(corners) + area(some) - inside
        value, at = (inside / union.clamp_(min=TINY)).max(2)
        index = torch.where(value > best, at + start, index)
        best = torch.maximum(best, value)
    return best.reshape(shape), index.reshape(shape)


def area(corners: Tensor) -> Tensor:
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
