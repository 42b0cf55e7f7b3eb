"""The score of a network on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from ..base.boxes import xywh_to_xyxy
from .ap import ClassScore, class_scores
from .coco_ap import coco_ap
from .matching import as_array, match, on_ignored
from .postprocess import detections
from .resampling import Hits


@dataclass(frozen=True)
class Result:
    """How well a data set was detected. Every number is defined and finite: 0 where there is nothing to
    count.

    Attributes:
        map50: mean over the classes that occur among the truths of the average precision at `iou_thres` (0.5
            by default).
        map: COCO's AP .50:.95.
        per_class: one dict a class that occurs: class, name, ap50, precision, recall, f1, truths, detections.
        precision, recall, f1: mean over those classes, at the end of each curve, as the reference prints
            them.
        images, boxes, detections: how many images, truths and detections were counted.
        scores: the `ClassScore` of each class, with its curve.
        hits: what they were made of, picture by picture.
    """

    map50: float
    map: float
    per_class: list[dict]
    precision: float
    recall: float
    f1: float
    images: int
    boxes: int
    detections: int
    scores: list[ClassScore] = field(repr=False, compare=False)
    hits: Hits = field(repr=False, compare=False)

    def to_dict(self) -> dict:
        """Plain values, fit for JSON: all but the curves."""
        return {
            name: getattr(self, name)
            for name in (
                "map50",
                "map",
                "per_class",
                "precision",
                "recall",
                "f1",
                "images",
                "boxes",
                "detections",
            )
        }


def score(
    found: Sequence,
    truths: Sequence,
    *,
    iou_thres: float = 0.5,
    plus_one: bool = False,
    names: Sequence[str] | None = None,
    coco: bool = True,
    ignored: Sequence | None = None,
) -> Result:
    """Compares detections with truths.

    Args:
        found: one (n, 6) tensor or array an image: left, top, right, bottom, score, class.
        truths: one (m, 5) an image: left, top, right, bottom, class; the same unit.
        iou_thres, plus_one: as in `match`. COCO's AP knows neither.
        names: of the classes; None: their numbers.
        coco: work out COCO's AP as well (else `map` is 0).
        ignored: one (k, 5) an image, as `truths`: what counts neither as found nor as missed.
    """
    found, truths = [as_array(f) for f in found], [as_array(t) for t in truths]
    right = [match(f, t, iou_thres, plus_one) for f, t in zip(found, truths, strict=True)]
    every = found
    if ignored is not None:
        aside = [on_ignored(f, i, iou_thres) & ~r for f, i, r in zip(found, ignored, right, strict=True)]
        found = [f[~a] for f, a in zip(found, aside, strict=True)]
        right = [r[~a] for r, a in zip(right, aside, strict=True)]
    rows = np.concatenate(found) if found else np.zeros((0, 6))
    boxes = np.concatenate(truths) if truths else np.zeros((0, 5))
    flags = np.concatenate(right) if right else np.zeros(0, bool)
    scores = class_scores(flags, rows[:, 4], rows[:, 5], boxes[:, 4])
    image, truth_image = (np.repeat(np.arange(len(each)), list(map(len, each))) for each in (found, truths))
    hits = Hits(image, rows[:, 4], rows[:, 5], flags, truth_image, boxes[:, 4], len(truths))

    def mean(name: str) -> float:
        return float(np.mean([getattr(s, name) for s in scores])) if scores else 0.0

    per_class = [
        {
            "class": s.label,
            "name": names[s.label] if names and s.label < len(names) else str(s.label),
            "ap50": s.ap,
            "precision": s.precision,
            "recall": s.recall,
            "f1": s.f1,
            "truths": s.truths,
            "detections": s.detections,
        }
        for s in scores
    ]
    return Result(
        mean("ap"),
        coco_ap(every, truths, ignored) if coco else 0.0,
        per_class,
        mean("precision"),
        mean("recall"),
        mean("f1"),
        len(found),
        len(boxes),
        len(rows),
        scores,
        hits,
    )


def evaluate(
    model: torch.nn.Module,
    loader: Iterable,
    *,
    iou_thres: float = 0.5,
    conf_thres: float = 0.01,
    nms_thres: float = 0.5,
    plus_one: bool = False,
    multi_label: bool = False,
    device: torch.device | None = None,
    amp: bool | torch.dtype = False,
    progress: Callable | None = None,
    names: Sequence[str] | None = None,
    coco: bool = True,
    ignored: Sequence[np.ndarray] | None = None,
) -> Result:
    """Runs a detector over a data set and scores it. The model's train and eval modes are as before when it
    returns.

    Args:
        model: in eval mode (images (B, C, H, W) in 0..1) -> (B, boxes, 5 + classes), pixels of the input.
        loader: yields (images (B, C, H, W), uint8 or float in 0..1; targets (N, 6): image index in the batch,
            class, centre x, centre y, width, height relative to the input).
        iou_thres: a detection is right from this overlap on.
        conf_thres, nms_thres, plus_one, multi_label: as in `detections`.
        device: where to run; None: where the model is.
        amp: autocast to bfloat16 (float16 on a GPU without it), or to a dtype of one's own.
        progress: called with (loader, desc=...) to wrap it, such as `commands.progress`.
        names: of the classes.
        coco: work out COCO's AP .50:.95 as well (else `map` is 0).
        ignored: (k, 5) class, centre x, centre y, width, height relative to the input of every image, in the
            loader's order: what counts neither as found nor as missed.
    """
    weights = list(model.parameters())
    device = device or (weights[0].device if weights else torch.device("cpu"))
    layout = torch.channels_last if _is_channels_last(weights) else torch.contiguous_format
    half = amp if isinstance(amp, torch.dtype) else _half(device)
    found, truths = [], []
    with _eval_mode(model), torch.no_grad():
        for images, targets in progress(loader, desc="evaluating") if progress else loader:
            batch = images.to(device, non_blocking=True)
            batch = (batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()).contiguous(
                memory_format=layout
            )
            with torch.autocast(device.type, half, enabled=bool(amp)):
                pred = model(batch)
            found += detections(
                pred.float(), conf_thres, nms_thres, plus_one=plus_one, multi_label=multi_label
            )
            truths += _truths(targets, len(images), images.shape[-2:])
            size = images.shape[-2:]
    aside = None if ignored is None else [_corners(rows, size) for rows in ignored]
    return score(found, truths, iou_thres=iou_thres, plus_one=plus_one, names=names, coco=coco, ignored=aside)


def _corners(rows: np.ndarray, img_size: Sequence[int]) -> np.ndarray:
    """(k, 5) class, x, y, w, h relative to the input -> corners in its pixels, and class."""
    height, width = img_size
    boxes = xywh_to_xyxy(rows[:, 1:] * np.array([width, height, width, height], np.float32))
    return np.concatenate((boxes, rows[:, :1]), 1)


def _truths(targets: torch.Tensor, images: int, img_size: Sequence[int]) -> list[np.ndarray]:
    """One (m, 5) an image, xyxy in pixels of the input and class."""
    rows = targets.detach().cpu().float().numpy().reshape(-1, 6)
    height, width = img_size
    boxes = xywh_to_xyxy(rows[:, 2:] * np.array([width, height, width, height], np.float32))
    boxes = np.concatenate((boxes, rows[:, 1:2]), 1)
    return [boxes[rows[:, 0] == i] for i in range(images)]


def _half(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16


def _is_channels_last(weights: list[torch.Tensor]) -> bool:
    """Whether a convolution's weights lie channels last; those of 1 x 1 lie both ways and say nothing."""
    return any(
        w.dim() == 4 and w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous()
        for w in weights
    )


@contextmanager
def _eval_mode(model: torch.nn.Module):
    """Eval mode inside; afterwards every module is in its own mode again, also where they differed."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
