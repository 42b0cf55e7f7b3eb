"""The pictures that a cut needs, all checked before the work starts: those that judge, those that choose,
those that calibrate.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from .. import evaluation
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.dataset import ListDataset
from ..data.loader import Loader, make_loader
from ..data.plain import plain_dataset
from ..network.darknet import Darknet
from ..network.renorm import renormalize
from ..pruning.blocks import Removal
from ..pruning.importance import LOOKING
from ..pruning.plan import PrunePlan
from ..pruning.recalibrate import recalibrate
from ..pruning.reconstruct import Reconstruction, reconstruct
from . import choosing
from .cut_settings import AUTO, CALIBRATION, PruneSettings


class Pictures:
    """Scores and calibrates networks on what the settings name.

    Attributes:
        batches: training batches, without augmentation, for repairs and for scores that look at gradients.
        repair: `recalibrate` or `reconstruct`, what is done to a network after the cut; None: nothing.
        repair_batches: on how many of the batches.
    """

    def __init__(self, settings: PruneSettings, model: Darknet, device, observer: Observer, stop: StopFlag):
        self.settings, self.device, self.observer, self.reports = settings, device, observer, []
        self.progress = watched(observer, stop, "stopped; nothing was written")
        sweeps, auto = settings.sweep is not None, settings.score == AUTO
        alone = settings.sensitivity is not None
        repairs = bool(settings.recalibrate or settings.reconstruct)
        folds = settings.fold == AUTO and not settings.no_eval and (repairs or auto)
        chooses = sweeps or auto or folds or settings.max_map_drop is not None
        recalibrates = settings.recalibrate
        if recalibrates is None:
            tries = sweeps and not settings.no_eval and not settings.reconstruct
            recalibrates = CALIBRATION if tries else 0
        reconstructs = settings.reconstruct or CALIBRATION * (auto and settings.recalibrate is None)
        self.repair = "reconstruct" if reconstructs else "recalibrate" if recalibrates else None
        self.repair_batches = reconstructs or recalibrates
        wanted = max(self.repair_batches, CALIBRATION * (auto or settings.score.startswith(LOOKING)))
        wanted = max(wanted, int(alone or settings.max_layer_loss is not None))
        self.judging: Loader | None = None
        self.choosing: Loader | None = None
        self.batches, self.names = [], None
        if settings.no_eval and not wanted:
            return
        config = datafile.read_data(settings.data_config)
        self.names = config.names
        if not settings.no_eval and not sweeps and not alone:
            by_rule = (
                chooses and settings.choose_on is None and choosing.chosen_list(config, None) is not None
            )
            self.judging = self._loader(self._list(model, config, "test" if by_rule else "valid"))
        if not settings.no_eval and chooses:
            self.choosing = self._loader(self._chooser(model, config))
        if wanted:
            train = self._list(model, config, "train")
            if self.choosing is not None and self.choosing.dataset.report.list_path == train.report.list_path:
                train = _part(train, choosing.rest(len(train), self._places(train)))  # not what chooses
            with make_loader(
                train,
                settings.batch_size,
                shuffle=True,
                seed=settings.seed,
                drop_last=len(train) > settings.batch_size,
            ) as loader:
                self.batches = list(islice(loader, wanted))

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_) -> None:
        for loader in (self.judging, self.choosing):
            if loader is not None:
                loader.close()

    def _list(self, model: Darknet, config: datafile.DataConfig, key: str) -> ListDataset:
        dataset = plain_dataset(
            model,
            config,
            key,
            self.settings.img_size,
            self.progress,
            self.settings.resize,
            **self.settings.reading,
        )
        self.reports.append(dataset.report)
        return dataset

    def _loader(self, dataset: ListDataset) -> Loader:
        return make_loader(
            dataset, self.settings.batch_size, workers=self.settings.n_cpu, seed=self.settings.seed
        )

    def _chooser(self, model: Darknet, config: datafile.DataConfig) -> ListDataset:
        path = choosing.chosen_list(config, self.settings.choose_on)
        if path is not None:
            dataset = self._list(model, replace(config, valid=path), "valid")
        else:
            dataset = self._list(model, config, "train")
            dataset = _part(dataset, self._places(dataset))
        self.observer.say(choosing.said(config, self.settings.choose_on, len(dataset), trained_on=True))
        return dataset

    def _places(self, dataset: ListDataset) -> np.ndarray:
        return choosing.held_out(len(dataset), self.settings.seed)

    def judge(self, model: Darknet) -> float | None:
        """mAP50 on `valid`, or on `test` where `valid` chooses; None without evaluation."""
        result = self._score(model, self.judging)
        return None if result is None else result.map50

    def choose(self, model: Darknet) -> float | None:
        """mAP50 on the pictures that choose; None without evaluation."""
        result = self.looked_at(model)
        return None if result is None else result.map50

    def looked_at(self, model: Darknet) -> evaluation.Result | None:
        """The score on the pictures that choose, with all that it is made of."""
        return self._score(model, self.choosing)

    def _score(self, model: Darknet, loader: Loader | None) -> evaluation.Result | None:
        if loader is None:
            return None
        s = self.settings
        model.to(self.device)
        result = evaluation.evaluate(
            model,
            loader,
            iou_thres=s.iou_thres,
            conf_thres=s.conf_thres,
            nms_thres=s.nms_thres,
            names=self.names,
            progress=self.progress,
            ignored=loader.dataset.ignored(),
            coco=False,
        )
        model.cpu()
        return result

    def mend(
        self, model: Darknet, decision: PrunePlan, compact: Darknet, removal: Removal | None = None
    ) -> Reconstruction | None:
        """Repairs a network after its cut, in place, as the settings say; None where they ask for nothing.

        Args:
            model: the network before blocks and channels were removed. decision: the plan for what it was
                without the blocks of `removal`.
        """
        batches = self.batches[: self.repair_batches]
        if self.repair is None:
            return None
        compact.to(self.device)
        if self.repair == "recalibrate":
            done = Reconstruction(recalibrate(compact, self.progress(batches, desc="recalibrating")), ())
        else:
            model.to(self.device)
            done = reconstruct(
                removal.model if removal else model,
                compact,
                decision,
                batches,
                target=model,
                numbers=removal and removal.numbers,
                seed=self.settings.seed,
                progress=self.progress,
            )
            model.cpu()
            renormalize(compact, [images for images, _ in batches])  # finetuning starts from what it is
        compact.cpu()
        return done

    def remember(self) -> None:
        """Keeps what the checks found for the next job."""
        for checked in self.reports:
            checked.remember()


def _part(dataset: ListDataset, places: np.ndarray) -> ListDataset:
    """Some of the pictures of a data set."""
    report = dataset.report.subset(places)
    return ListDataset(
        report.list_path,
        dataset.classes,
        dataset.img_size,
        letterbox=dataset.letterbox,
        channels=dataset.channels,
        report=report,
        resize=dataset.resize,
    )
