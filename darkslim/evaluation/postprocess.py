"""From a network's output to detections: thresholds, then non-maximum suppression.

Two conventions, kept apart because they count differently:

`detections`     the reference's (Lam1360): a box is kept if its *objectness* reaches the threshold, and it
                 stands for its best class only, with score = objectness * probability of that class.
                 `multi_label=True` makes every class of a box with score > threshold a detection, as
                 Darknet's `detector map` does. Two habits of the reference are not followed: it ranks by
                 objectness alone, which ignores how sure the class is, and it moves a kept box to the mean of
                 those that it suppressed.
`darknet_boxes`  Darknet's own rows (src/yolo_layer.c get_yolo_detections, src/box.c): relative coordinates,
                 objectness, objectness * probability for every class, suppressed class by class.
"""

from __future__ import annotations

import numpy as np
import torch

from ..base.boxes import xywh_to_xyxy
from ..base.suppression import nms


def detections(
    pred: torch.Tensor,
    conf_thres: float = 0.01,
    nms_thres: float = 0.5,
    *,
    multi_label: bool = False,
    plus_one: bool = False,
    nms_kind: str = "default",
    beta: float = 0.6,
    max_nms: int | None = 30000,
    max_det: int | None = None,
) -> list[torch.Tensor]:
    """The detections of a batch.

    Args:
        pred: (B, N, 5 + classes): centre x, centre y, width, height in pixels, objectness, class
            probabilities.
        conf_thres: kept where objectness >= it (with `multi_label`: objectness and objectness * probability >
            it).
        nms_thres, nms_kind, beta, plus_one: as in `suppression.nms`.
        multi_label: every class of a box that passes, not only the best.
        max_nms: at most so many candidates an image enter the suppression, the best ones; None: all.
        max_det: at most so many detections an image; None: all.

    Returns:
        one CPU float32 tensor (n, 6) an image: left, top, right, bottom in pixels, score, class; descending
            score.
        Boxes that are not finite are dropped.
    """
    image, rows = _candidates(pred.detach(), conf_thres, multi_label)
    bounds = np.searchsorted(image, np.arange(len(pred) + 1))
    result = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        found = rows[start:end]
        if max_nms is not None and len(found) > max_nms:
            found = found[np.argsort(-found[:, 4], kind="stable")[:max_nms]]
        kept = nms(found[:, :4], found[:, 4], found[:, 5], nms_thres, nms_kind, beta, plus_one).numpy()
        result.append(torch.from_numpy(found[kept[:max_det]]))
    return result


def _candidates(pred: torch.Tensor, conf_thres: float, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Image (M,) and row (M, 6) of all that passes the threshold, image by image, in the order of the
    network's boxes.

    In numpy but for the first choice on a GPU: these are many small steps, and torch would wake its threads
    for each.
    """
    if pred.dtype in (torch.bfloat16, torch.float16):
        pred = pred.float()
    objectness = pred[..., 4] if pred.is_cuda else pred[..., 4].numpy()
    passes = objectness > conf_thres if multi_label else objectness >= conf_thres
    if pred.is_cuda:
        image, box = passes.nonzero(as_tuple=True)
        found, image = pred[image, box].cpu().numpy(), image.cpu().numpy()
    else:
        image, box = np.nonzero(passes)
        found = pred.numpy()[image, box]
    scores = found[:, 4:5] * found[:, 5:]
    if multi_label:
        row, label = np.nonzero(scores > conf_thres)
        image, found = image[row], found[row]
    else:
        row, label = np.arange(len(scores)), scores.argmax(1)
    rows = np.concatenate(
        (xywh_to_xyxy(found[:, :4]), scores[row, label][:, None], label[:, None]), 1, dtype=np.float32
    )
    finite = np.isfinite(rows).all(1)
    return (image, rows) if finite.all() else (image[finite], rows[finite])


def darknet_boxes(
    pred: torch.Tensor,
    img_size: tuple[int, int],
    thresh: float = 0.1,
    nms_thres: float | None = 0.45,
    nms_kind: str = "default",
    beta: float = 0.6,
) -> list[torch.Tensor]:
    """What Darknet's `detector test` would list: every class of a box, suppressed class by class over all
    heads.

    Args:
        pred: as in `detections`.
        img_size: (H, W) of the network's input, pixels.
        thresh: kept where objectness > it; a class score (objectness * probability) at or below it becomes 0.
        nms_thres: a class score becomes 0 where a higher one of that class overlaps by more; rows with no
            class left are removed. None: no suppression, rows without a class stay.
        nms_kind, beta: `nms_kind` and `beta_nms` of the last head; distances are in relative coordinates, as
            in Darknet.

    Returns:
        one CPU float32 tensor (n, 5 + classes) an image: centre x, centre y, width, height relative to the
        input, objectness, class scores; in the order of the network's boxes.
    """
    height, width = img_size
    result = []
    for image in pred.detach().float().cpu():
        rows = image[image[:, 4] > thresh].clone()
        rows[:, :4] /= torch.tensor([width, height, width, height], dtype=rows.dtype)
        scores = rows[:, 4:5] * rows[:, 5:]
        rows[:, 5:] = torch.where(scores > thresh, scores, 0)
        if nms_thres is not None:
            rows = _suppress_classes(rows, nms_thres, nms_kind, beta)
        result.append(rows)
    return result


def _suppress_classes(rows: torch.Tensor, nms_thres: float, nms_kind: str, beta: float) -> torch.Tensor:
    row, label = torch.nonzero(rows[:, 5:], as_tuple=True)
    score = rows[row, 5 + label]
    kept = nms(xywh_to_xyxy(rows[row, :4]), score, label, nms_thres, nms_kind, beta)
    scores = torch.zeros_like(rows[:, 5:])
    scores[row[kept], label[kept]] = score[kept]
    return torch.cat((rows[:, :5], scores), 1)[scores.any(1)]
