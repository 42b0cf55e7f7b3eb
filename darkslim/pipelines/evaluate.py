"""The score of a network on a list of pictures, as one job."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from .. import evaluation
from ..base import devices, files
from ..base.boxes import xywh_to_xyxy
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.dataset import ListDataset, to_input
from ..data.loader import make_loader
from ..data.plain import plain_dataset
from ..deploy.engines import open_file
from ..network import weights
from ..report import examples
from ..report.pr_curve import pr_curve
from ..training.faults import plain_errors
from .running import running
from .settings import EvaluateSettings

SHOWN = 0.3  # the least score of a detection on the sheet of examples
EXAMPLES = 12


def evaluate(
    settings: EvaluateSettings, observer: Observer | None = None, stop: StopFlag | None = None
) -> dict:
    """Scores a network, and draws what is asked for.

    Returns:
        map50, map (COCO .5:.95), per_class, precision, recall, f1, images, boxes, detections, seconds, and
        the settings.

    Raises:
        DarkslimError: an input or a setting is wrong; nothing was written.
    """
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    device = devices.device(settings.device)
    files.check_outputs({"--figure": settings.figure, "--examples": settings.examples}, settings.reads())
    devices.seed_everything(settings.seed)
    data = datafile.read_data(settings.data_config)
    if settings.images is not None:
        data = replace(data, valid=Path(settings.images))
    if settings.exported is None:
        model = weights.load_model(settings.model_def, settings.weights_path)
    else:
        model = open_file(settings.exported, settings.engine)
    progress = watched(observer, stop, "stopped while evaluating")
    dataset = plain_dataset(
        model, data, "valid", settings.img_size, progress, settings.resize, **settings.reading
    )
    size, counts = dataset.img_size, dataset.report.counts
    observer.say(
        f"{counts['images']} images, {counts['boxes']} boxes in {dataset.report.list_path}, at "
        f"{size[1]}x{size[0]}"
    )
    if model.trained_at not in (None, tuple(size)):
        trained = f"{model.trained_at[1]}x{model.trained_at[0]}"
        warnings.warn(
            f"{settings.weights_path}: trained at {trained} and measured at "
            f"{size[1]}x{size[0]}; --img_size {model.trained_at[1]} measures what was trained",
            stacklevel=2,
        )
    ignored = dataset.ignored()
    dataset.report.remember()
    if settings.exported is None:
        model = running(model, settings.engine or "torch", size, device)
    loader = make_loader(dataset, settings.batch_size, workers=settings.n_cpu, seed=settings.seed)
    with plain_errors(), loader:
        began = time.perf_counter()
        result = evaluation.evaluate(
            model,
            loader,
            iou_thres=settings.iou_thres,
            conf_thres=settings.conf_thres,
            nms_thres=settings.nms_thres,
            plus_one=settings.plus_one,
            multi_label=settings.multi_label,
            device=device,
            amp=settings.amp,
            progress=progress,
            names=data.names,
            ignored=ignored,
        )
        seconds = time.perf_counter() - began
    draw(settings, result, model, dataset, data.names)
    kept = (
        "img_size",
        "resize",
        "model_def",
        "iou_thres",
        "conf_thres",
        "nms_thres",
        "plus_one",
        "multi_label",
        "figure",
    )
    return {
        **result.to_dict(),
        **{name: getattr(settings, name) for name in kept},
        "seconds": seconds,
        "img_size": size,
        "weights": settings.exported or settings.weights_path,
        "engine": getattr(model, "name", "torch"),
    }


def draw(
    settings: EvaluateSettings, result: evaluation.Result, model, dataset: ListDataset, names: list[str]
) -> None:
    """The pictures that were asked for: all of them are written, or none."""
    saves = []
    if settings.figure:
        title = f"{Path(settings.model_def).name}: mAP {result.map50:.4f} at IoU {settings.iou_thres:g}"
        saves.append(files.Save(settings.figure, pr_curve(result.scores, names, title)))
    if settings.examples:
        saves.append(files.Save(settings.examples, examples.sheet(look(settings, model, dataset), names)))
    files.save_all(saves)


def look(settings: EvaluateSettings, model, dataset: ListDataset):
    """The first pictures as the network sees them, with truths and detections in its pixels."""
    device = next(model.parameters()).device
    for index in range(min(EXAMPLES, len(dataset))):
        pixels, rows = dataset.load(index)
        height, width = pixels.shape[:2]
        with torch.inference_mode():
            pred = model(to_input(torch.from_numpy(pixels).permute(2, 0, 1)[None], device))
        boxes = evaluation.detections(pred, SHOWN, settings.nms_thres)[0]
        truths = xywh_to_xyxy(torch.from_numpy(rows[:, 1:5]) * torch.tensor([width, height, width, height]))
        yield pixels, truths.numpy(), boxes[boxes[:, 4] >= SHOWN].numpy()
