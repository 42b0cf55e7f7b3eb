"""The mAP of one network after another on `valid`, for jobs that change weights and measure before and
after.
"""

from __future__ import annotations

import contextlib
import time

from .. import evaluation
from ..base import devices
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.loader import Loader, make_loader
from ..data.plain import plain_dataset
from ..network.darknet import Darknet
from ..training.faults import plain_errors
from .compress_settings import Compressing


class Scores:
    """The pictures of `valid`, looked at before the work starts; none with --no_eval.

    Args:
        settings: with model_def, data_config and the thresholds. coco: COCO's AP as well.
    """

    def __init__(
        self, settings: Compressing, model: Darknet, observer: Observer, stop: StopFlag, coco: bool = False
    ):
        self.coco = coco
        self.settings, self.device = settings, devices.device(settings.device)
        self.progress = watched(observer, stop, "stopped; nothing was written")
        self.loader: Loader | None = None
        self.results: list[evaluation.Result] = []
        if settings.no_eval:
            return
        self.config = datafile.read_data(settings.data_config)
        dataset = plain_dataset(
            model, self.config, "valid", settings.img_size, self.progress, settings.resize, **settings.reading
        )
        self.report = dataset.report
        self.loader = make_loader(
            dataset, getattr(settings, "batch_size", 16), workers=settings.n_cpu, seed=settings.seed
        )

    def __enter__(self) -> Scores:
        return self

    def __exit__(self, kind, *_) -> None:
        if self.loader is not None:
            self.loader.close()
            if kind is None:
                with contextlib.suppress(OSError):
                    self.report.remember()

    def of(self, model: Darknet) -> float | None:
        """mAP50; the whole result is the last of `results`. None without pictures."""
        if self.loader is None:
            return None
        s = self.settings
        model.to(self.device)
        with plain_errors():
            result = evaluation.evaluate(
                model,
                self.loader,
                iou_thres=s.iou_thres,
                conf_thres=s.conf_thres,
                nms_thres=s.nms_thres,
                names=self.config.names,
                progress=self.progress,
                ignored=self.loader.dataset.ignored(),
                coco=self.coco,
            )
        model.cpu()
        self.results.append(result)
        return result.map50

    def row(self, model: Darknet) -> dict | None:
        """images, boxes, precision, recall, map50, map, seconds; None without pictures."""
        began = time.perf_counter()
        if self.of(model) is None:
            return None
        found, seconds = self.results[-1].to_dict(), time.perf_counter() - began
        names = ("images", "boxes", "precision", "recall", "map50", "map")
        return {**{name: found[name] for name in names}, "seconds": seconds}
