"""Detection heads: the one place that turns a raw map into boxes.

Used by the network, the loss, evaluation and export alike. Channel layout of a head's input map, as in
Darknet: [anchor][x, y, w, h, objectness, classes...].

yolo:   x, y, objectness, classes through a sigmoid (none if new_coords), then xy = s * xy - (s - 1) / 2;
        bx = (column + x) / grid_w;  bw = exp(w) * anchor_w / net_w, 4 w^2 * anchor_w / net_w if new_coords.
region: x, y, objectness through a sigmoid, softmax over the classes; anchors are in cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .node import Node


@dataclass(frozen=True)
class Head:
    """A detection layer.

    Attributes:
        index: layer number.
        kind: "yolo" or "region".
        anchors: (w, h) in input pixels, those of this head's mask.
        all_anchors: (w, h) in input pixels, all of the cfg's; the loss assigns truths among them.
        mask: which of `all_anchors` are this head's.
        classes: number of classes.
        stride: input pixels per cell.
        opts: every typed key of the section.
    """

    index: int
    kind: str
    anchors: tuple[tuple[float, float], ...]
    all_anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    classes: int
    stride: float
    opts: Mapping[str, Any]

    @classmethod
    def of(cls, node: Node) -> Head:
        """The head that a graph's node describes."""
        stride = float(node.stride)
        unit = stride if node.type == "region" else 1.0
        every = tuple((w * unit, h * unit) for w, h in node.opts["anchors"])
        return cls(
            node.index,
            node.type,
            tuple(every[m] for m in node.opts["mask"]),
            every,
            node.opts["mask"],
            node.opts["classes"],
            stride,
            node.opts,
        )

    def __deepcopy__(self, memo) -> Head:
        return self

    @property
    def scale_x_y(self) -> float:
        """The factor on x and y around the cell's centre."""
        return self.opts.get("scale_x_y", 1.0)

    @property
    def new_coords(self) -> bool:
        """Whether the convolution before is logistic and w, h are squared instead of exponentiated."""
        return bool(self.opts.get("new_coords", 0))


def raw_map(x: Tensor, head: Head) -> Tensor:
    """(B, M * (5 + classes), H, W) -> (B, M, H, W, 5 + classes)."""
    b, _, h, w = x.shape
    return x.view(b, len(head.mask), 5 + head.classes, h, w).permute(0, 1, 3, 4, 2)


def flat_map(raw: Tensor) -> Tensor:
    """The inverse of `raw_map`: (B, M, H, W, 5 + classes) -> (B, M * (5 + classes), H, W)."""
    b, m, h, w, n = raw.shape
    return raw.permute(0, 1, 4, 2, 3).reshape(b, m * n, h, w)


def activate(raw: Tensor, head: Head) -> Tensor:
    """A raw map with its activations applied, as Darknet stores a head's output; w and h stay raw.

    Args:
        raw: (B, M, H, W, 5 + classes).
    """
    if head.kind == "region":
        scores = raw[..., 5:].softmax(-1) if head.opts["softmax"] else raw[..., 5:].sigmoid()
        return torch.cat((raw[..., :2].sigmoid(), raw[..., 2:4], raw[..., 4:5].sigmoid(), scores), -1)
    s = head.scale_x_y
    if head.new_coords:
        return torch.cat((raw[..., :2] * s - (s - 1) / 2, raw[..., 2:]), -1)
    return torch.cat((raw[..., :2].sigmoid() * s - (s - 1) / 2, raw[..., 2:4], raw[..., 4:].sigmoid()), -1)


def stored_map(raw: Tensor, head: Head) -> Tensor:
    """A head's output as Darknet keeps it in memory, (B, M * (5 + classes), H, W).

    yolo: the activated map. region: x and y still raw, and the values of a cell side by side, whatever the
        shape says.
    """
    if head.kind == "region":
        b, m, h, w, n = raw.shape
        out = torch.cat((raw[..., :4], activate(raw, head)[..., 4:]), -1)
        return out.permute(0, 2, 3, 1, 4).reshape(b, m * n, h, w)
    return flat_map(activate(raw, head))


def decode_boxes(raw: Tensor, head: Head, img_size: tuple[int, int]) -> Tensor:
    """Boxes of a raw map, differentiable.

    Args:
        raw: (B, M, H, W, 5 + classes).
        img_size: (height, width) of the network's input in pixels.

    Returns:
        (B, M, H, W, 4): centre x, y, width, height in input pixels.
    """
    return _boxes(activate(raw, head)[..., :4], head, img_size)


def decode(raw: Tensor, head: Head, img_size: tuple[int, int]) -> Tensor:
    """All boxes of a raw map.

    Returns:
        (B, M * H * W, 5 + classes) float: centre x, y, width, height in input pixels, objectness, class
        probabilities.
    """
    raw = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
    if head.kind == "region":
        out = activate(raw, head)
        out = torch.cat((_boxes(out[..., :4], head, img_size), out[..., 4:]), -1)
        return out.reshape(out.shape[0], -1, out.shape[-1])
    last = raw.stride(-1) == 1  # channels last; else each number's map lies in one piece
    maps, axis = (raw, 4) if last else (raw.permute(0, 1, 4, 2, 3), 2)
    out = maps if head.new_coords else maps.sigmoid()
    column, row, unit = _cells(raw, img_size)
    x = (_spread_out(out.select(axis, 0), head) + column) * unit[0]
    y = (_spread_out(out.select(axis, 1), head) + row) * unit[1]
    size = maps.narrow(axis, 2, 2)
    size = 4 * size**2 if head.new_coords else size.exp()
    anchors = _anchors(head.anchors, raw.device, raw.dtype)
    size = size * anchors.view((1, -1, 1, 1, 2) if last else (1, -1, 2, 1, 1))
    scores = out.narrow(axis, 4, out.shape[axis] - 4)
    out = torch.cat((x.unsqueeze(axis), y.unsqueeze(axis), size, scores), axis)
    out = out.flatten(2, 3) if last else out.flatten(3).transpose(2, 3)  # (B, M, H * W, 5 + classes)
    return out.reshape(out.shape[0], -1, out.shape[3])  # no len(): a trace would keep its number


def _spread_out(x: Tensor, head: Head) -> Tensor:
    """Offsets in a cell after scale_x_y."""
    s = head.scale_x_y
    return x if s == 1 else x * s - (s - 1) / 2


def _cells(raw: Tensor, img_size: tuple[int, int]) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Columns (W,) and rows (H, 1) of a raw map's cells, and the width and height of one in pixels."""
    h, w = raw.shape[2:4]
    like = {"device": raw.device, "dtype": raw.dtype}
    return torch.arange(w, **like), torch.arange(h, **like).view(h, 1), (img_size[1] / w, img_size[0] / h)


@lru_cache(maxsize=256)
def _anchors(anchors: tuple[tuple[float, float], ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Anchors (M, 2) on a device: to copy them there for every picture would stop the device."""
    with torch.inference_mode(False):  # for a gradient may go by them, later
        return torch.tensor(anchors, device=device, dtype=dtype)


def _boxes(xywh: Tensor, head: Head, img_size: tuple[int, int]) -> Tensor:
    column, row, unit = _cells(xywh, img_size)
    x, y = (xywh[..., 0] + column) * unit[0], (xywh[..., 1] + row) * unit[1]
    size = 4 * xywh[..., 2:4] ** 2 if head.new_coords else xywh[..., 2:4].exp()
    anchors = _anchors(head.anchors, xywh.device, xywh.dtype).view(1, -1, 1, 1, 2)
    return torch.cat((x[..., None], y[..., None], size * anchors), -1)
