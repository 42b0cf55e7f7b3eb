"""Darknet's detection loss, vectorised: no loop over boxes, cells or images.

Darknet writes deltas, not a loss; what stands here is the function whose gradient is those deltas (AlexeyAB's
`yolo_layer.c`), summed over cells and divided by the batch, so that a cfg's
`learning_rate` means what it means there:

- x, y, objectness, classes: binary cross entropy with logits (gradient: sigmoid - target);
- w, h: half the squared error of the logarithm, and everything of a box times iou_normalizer * (2 - w h);
- `iou_loss=iou|giou|diou|ciou`: iou_normalizer * (1 - IoU) in place of the box term, with Darknet's Jacobian
  (`with_darknet_jacobian`): the small iou_normalizer of published cfgs was tuned with it;
- background objectness counts unless the predicted box overlaps a truth by more than `ignore_thresh` and
  some class has a probability above .25; a box that overlaps by more than `truth_thresh` becomes a positive
  of that truth;
- where several truths claim the same cell and anchor, every one pulls at the box, divided by the number of
  their classes, and every one sets its class (`averages_yolo_deltas`, `delta_yolo_class`);
- `new_coords=1` heads hand over what the logistic convolution before them made; the deltas of their x, y,
  w, h are those of half the squared error.

Two deliberate differences. Darknet uses the squared error for objectness and classes of `new_coords` heads as
well: through the logistic its slope is (p - t) p (1 - p), which vanishes once the background has pressed p to
zero, and from random weights the objects then stay at zero for good. Here it is cross entropy on the
probability, slope p - t, as in other heads. And the aspect term of CIoU has its true slope; Darknet leaves
out the factor 1 / (w^2 + h^2).

benchmarks/loss_rules.py measured the .25 and the sharing, with and without each: neither made a difference
beyond that of the seeds, so that Darknet's way stays.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import boxes
from ..network import heads
from .assignment import (
    TINY,
    Positives,
    anchors_of,
    assign,
    best_overlap,
    found,
    join,
    last_claims,
    pad_truths,
)

IGNORE_ABOVE = 0.25  # class probability from which on a box that overlaps a truth is no background
SHARE = True  # truths that claim one cell all pull at its box
# probability in a logarithm: less than one object among all boxes of an image, so that the background cannot
# outweigh it
LEAST = 1e-5
NOT_USED = {
    "focal_loss": 0,
    "objectness_smooth": 0,
    "max_delta": math.inf,
    "delta_normalizer": 1.0,
    "iou_thresh_kind": "iou",
}


class DetectionLoss:
    """The loss over all heads of a Darknet.

    Args:
        model_heads: `Darknet.heads`.

    Attributes:
        names: of the parts that the loss is the sum of.
    """

    names = ("box", "obj", "cls")

    def __init__(self, model_heads):
        self.heads = list(model_heads)
        ignored = sorted(
            {key for head in self.heads for key, off in NOT_USED.items() if head.opts.get(key, off) != off}
        )
        if ignored:
            warnings.warn(
                f"{' and '.join(ignored)} of the cfg would change Darknet's loss and is not used here",
                stacklevel=2,
            )

    def __call__(
        self, raw: list[Tensor], targets: Tensor, img_size: tuple[int, int], images: int | None = None
    ):
        """The loss of one batch.

        Args:
            raw: one (B, masks, H, W, 5 + classes) map a head, as `Darknet.raw_heads` gives them; any dtype,
                narrow ones are widened.
            targets: (N, 6) image index, class, centre x, centre y, width, height; 0..1 of the input.
            img_size: (height, width) of the input in pixels.
            images: what the sum is divided by (default B). A micro-batch is divided by the whole batch.

        Returns:
            total: scalar float32 (float64 for such maps) with a gradient; parts: {"box", "obj", "cls"}
                detached scalars that add up to it.
        """
        images = images or raw[0].shape[0]
        raw = [r.to(torch.promote_types(r.dtype, torch.float32)) for r in raw]
        targets = targets.to(raw[0].dtype)
        padded = pad_truths(targets, raw[0].shape[0], img_size)
        parts = [
            head_loss(head, r, targets, padded, img_size) for head, r in zip(self.heads, raw, strict=True)
        ]
        box, obj, cls = (torch.stack(terms).sum() / images for terms in zip(*parts, strict=True))
        return box + obj + cls, {"box": box.detach(), "obj": obj.detach(), "cls": cls.detach()}


def head_loss(head, raw: Tensor, targets: Tensor, padded, img_size) -> tuple[Tensor, Tensor, Tensor]:
    """(box, objectness, class) sums of one head; `raw` is float32 or float64, `padded` comes from
    `pad_truths`.
    """
    opts = head.opts
    kind = opts.get("iou_loss") or "mse"
    with torch.no_grad():
        decoded = heads.decode_boxes(raw, head, img_size)
        overlap, nearest = best_overlap(decoded, padded[0])
    positives = assign(head, targets, raw.shape, img_size)
    if opts.get("truth_thresh", 1.0) < 1:
        positives = join(positives, found(overlap > opts["truth_thresh"], nearest, padded[1]))
    last, group = last_claims(positives, raw.shape)
    single = positives.take(last)

    obj_target = torch.zeros_like(overlap)
    obj_target[single.where] = 1
    sure = class_probability(raw[..., 5:], head.new_coords) > IGNORE_ABOVE
    counted = (overlap <= opts.get("ignore_thresh", 0.5)) | ~sure | (obj_target > 0)
    obj = (elementwise(raw[..., 4], obj_target, head.new_coords) * counted).sum() * opts.get(
        "obj_normalizer", 1.0
    )

    cells = raw[single.where]
    classes = targets[positives.row, 1].long()
    cls = class_loss(cells[:, 5:], classes, group, opts.get("label_smooth_eps", 0.0), head.new_coords)
    claims, share = (positives, shares(classes, group)) if SHARE else (single, 1)
    truth, pulled = targets[claims.row, 2:], raw[claims.where][:, :4]
    if kind == "mse":
        box = mse_terms(head, pulled, claims, truth, raw.shape, img_size)
    else:
        pred = with_darknet_jacobian(decoded[claims.where], pulled, head, img_size)
        box = 1 - boxes.pairwise_iou(pred, truth, kind)
    box = (box * share).sum()
    return box * opts.get("iou_normalizer", 0.75), obj, cls * opts.get("cls_normalizer", 1.0)


@torch.no_grad()
def class_probability(classes: Tensor, new_coords: bool) -> Tensor:
    """The largest probability of any class, (...,) of (..., C): `compare_yolo_class` asks for no more."""
    most = classes.amax(-1)
    return most if new_coords else most.sigmoid()


def shares(classes: Tensor, group: Tensor) -> Tensor:
    """What each claim on a cell weighs: Darknet adds up the box deltas of all truths and divides them by the
    number of classes that they set (`averages_yolo_deltas`).

    Args:
        classes, group: (P,) class and cell of every positive.

    Returns:
        (P,) float.
    """
    pairs = torch.unique(torch.stack([group, classes], 1), dim=0)
    return 1 / torch.bincount(pairs[:, 0], minlength=1)[group].float()


def elementwise(x: Tensor, target: Tensor, new_coords: bool) -> Tensor:
    """Binary cross entropy of logits, or of probabilities for `new_coords`; the slope by the logit is sigmoid
    - target in both.
    """
    if new_coords:
        return -target * log(x) - (1 - target) * log(1 - x)
    return F.binary_cross_entropy_with_logits(x, target, reduction="none")


def log(probability: Tensor) -> Tensor:
    """The logarithm of at least LEAST. A clamp alone would have no slope there, and what is wrong most would
    never be corrected.
    """
    return torch.log(probability + (probability.clamp(min=LEAST) - probability).detach())


def mse_terms(head, pred: Tensor, positives: Positives, truth: Tensor, shape, img_size) -> Tensor:
    """Darknet's box term, (2 - w h) times the terms of x, y, w, h.

    Args:
        pred: (P, 4) raw x, y, w, h. truth: (P, 4) centre and size, 0..1.

    Returns:
        (P,) one term a positive.
    """
    grid_h, grid_w = shape[2:4]
    _, anchor, row, column = positives.where
    scale, height, width = head.scale_x_y, *img_size
    offset = truth[:, :2] * truth.new_tensor([grid_w, grid_h]) - torch.stack([column, row], 1)
    ratio = truth[:, 2:] * truth.new_tensor([width, height]) / anchors_of(head, truth.device)[anchor]
    ratio = ratio.clamp(min=TINY)
    if head.new_coords:
        size = torch.sqrt(ratio / 4)
        xy = 0.5 * (scale * pred[:, :2] - (scale - 1) / 2 - offset) ** 2 / scale
    else:
        size = torch.log(ratio)
        # sigmoid must reach (offset + (s - 1) / 2) / s; times s, the gradient is Darknet's s sigmoid - (s -
        # 1) / 2 - offset
        xy = scale * F.binary_cross_entropy_with_logits(
            pred[:, :2], (offset + (scale - 1) / 2) / scale, reduction="none"
        )
    wh = 0.5 * (pred[:, 2:] - size) ** 2
    weight = 2 - truth[:, 2] * truth[:, 3]
    return (xy + wh).sum(1) * weight


def with_darknet_jacobian(decoded: Tensor, raw: Tensor, head, img_size) -> Tensor:
    """The predicted boxes as fractions of the input, differentiable as Darknet takes them to be.

    `delta_yolo_box` hands the derivative of the IoU by the relative x and y to the raw x and y unchanged, and
    that by w and h times exp(raw); `new_coords` heads get all four unchanged. The values are exact, only the
    slopes are these.

    Args:
        decoded: (P, 4) centre and size in pixels, without gradient. raw: (P, 4) raw x, y, w, h.
    """
    height, width = img_size
    slope = raw if head.new_coords else torch.cat([raw[:, :2], raw[:, 2:].exp()], 1)
    return decoded / decoded.new_tensor([width, height, width, height]) + (slope - slope.detach())


def class_loss(pred: Tensor, classes: Tensor, group: Tensor, smooth: float, new_coords: bool) -> Tensor:
    """Class terms of the positive cells.

    Args:
        pred: (cells, C). classes, group: (P,) the class of every positive and the cell (row of `pred`) it
            belongs to.
    """
    target = torch.zeros_like(pred)
    target[group, classes] = 1
    if smooth:
        target = target * (1 - smooth) + 0.5 * smooth
    return elementwise(pred, target, new_coords).sum()
