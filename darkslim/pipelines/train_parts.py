"""The parts of a training, as settings and cfg ask for them: loaders, run, teachers, and what judges it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .. import evaluation
from ..base.errors import CfgError, RequestError
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.augment import Augment
from ..data.balance import repeat_factors
from ..data.check import Report
from ..data.dataset import ListDataset
from ..data.loader import Loader, MultiScale, make_loader
from ..data.mosaic import DARKNETS
from ..network import schema
from ..network.darknet import Darknet
from ..network.weights import load_model
from ..training import loop, precision
from ..training.checkpointer import Checkpointer
from ..training.distillation import Distillation
from ..training.ema import EMA
from ..training.objective import Detection, Objective
from ..training.optim import make_optimizer, make_schedule
from ..training.penalties import Constraint
from ..training.quantization_aware import QuantizationAware
from . import sparsity
from .doctor import PICTURES, Doctor
from .settings import TrainSettings


def check_heads(model: Darknet, data: datafile.DataConfig) -> None:
    """The cfg must detect as many classes as the data have, and its heads must be trainable."""
    for head in model.heads:
        section = model.cfg.layers[head.index]
        if section.type != "yolo":
            raise CfgError(section.place, "this kind of head cannot be trained here", "[yolo] heads")
        if head.classes != data.classes:
            raise CfgError(
                section.place,
                f"classes={head.classes}",
                f"classes={data.classes} as in {data.path}",
                "change the cfg (and filters before each [yolo]) or the data",
            )
    if not model.heads:
        raise CfgError(model.cfg.path, "has no [yolo] layer", "a detector")


def make_loader_of(
    settings: TrainSettings,
    model: Darknet,
    report: Report,
    size,
    world,
    training: bool = True,
    difficult=None,
) -> Loader:
    """Shuffled batches of the training list (this process's share), or the validation list in order."""
    net, head = schema.values(model.cfg.net), model.heads[0].opts
    augment = augmentation(settings, net, head) if training else None
    dataset = ListDataset(
        report.list_path,
        report.classes,
        size,
        augment=augment,
        report=report,
        letterbox=bool(net["letter_box"]),
        channels=model.cfg.channels,
        seed=settings.seed,
        resize=settings.resize,
        difficult=None if training else difficult,
    )
    share = world.share(settings.batch_size, settings.accumulate)
    if not training:
        return make_loader(dataset, share, workers=settings.n_cpu, seed=settings.seed)
    whole = (
        len(dataset) >= settings.batch_size
    )  # then batches cut short are left out: other images each epoch
    if not whole and world.size > 1:
        raise RequestError(
            "--batch_size",
            f"{settings.batch_size} images, and the list has {len(dataset)}",
            remedy="use a smaller one",
        )
    rare = settings.balance
    factors = repeat_factors(report.rows[:, 0], report.offsets, rare) if rare else None
    scales = MultiScale(size, step=model.graph.stride) if settings.multiscale_training else None
    return make_loader(
        dataset,
        share,
        shuffle=True,
        workers=settings.n_cpu,
        seed=settings.seed,
        drop_last=whole,
        rank=world.rank,
        world=world.size,
        multiscale=scales,
        factors=factors,
    )


def doctor_of(settings: TrainSettings, run: loop.Run, report: Report, size) -> Doctor:
    """The doctor of a sparsity training, with the pictures that it looks at."""
    looked_at = plain_batches(settings, run.model, report, size)
    return Doctor(run, settings.strategy, looked_at, run.schedule.all(), settings.epochs)


def plain_batches(settings: TrainSettings, model: Darknet, report: Report, size) -> list:
    """A few training pictures as they are, drawn by the seed, in batches."""
    count = min(PICTURES, -(-len(report.images) // 8))
    places = np.random.default_rng([settings.seed, count]).permutation(len(report.images))[:count]
    dataset = ListDataset(
        report.list_path,
        report.classes,
        size,
        letterbox=bool(schema.values(model.cfg.net)["letter_box"]),
        channels=model.cfg.channels,
        report=report.subset(np.sort(places)),
        resize=settings.resize,
    )
    with make_loader(dataset, min(count, settings.batch_size), seed=settings.seed) as loader:
        return list(loader)


def augmentation(settings: TrainSettings, net, head) -> Augment:
    """How training pictures are changed: as the cfg says, and the settings."""
    chance = settings.mosaic
    if chance is None:
        chance = DARKNETS if net["mosaic"] else 0.0
    until = settings.epochs - settings.epochs // 10  # the last pictures are whole, as those that are judged
    return Augment.from_options(net, head, vflip=settings.vflip, mosaic=chance, mosaic_until=until)


def make_run(
    settings: TrainSettings,
    model: Darknet,
    batches: int,
    world,
    observer: Observer,
    more: list[Constraint],
    trained: bool,
) -> loop.Run:
    """The parts that the settings and the cfg ask for, and further constraints.

    Args:
        batches: of an epoch.
        trained: the weights have something to lose, see `make_schedule`.
    """
    net, steps = schema.values(model.cfg.net), batches * settings.epochs
    schedule, said = make_schedule(net, steps, settings.learning_rate, settings.schedule, trained)
    if settings.sr and settings.ema:
        said.append("no average of the weights: it would lag behind the gammas that -sr moves")
    for sentence in said:
        observer.say(sentence)
    accuracy = precision.Precision(settings.amp, world.device)
    pressed = [sparsity.penalty(settings, model, schedule.all(), net["momentum"])] if settings.sr else []
    rounding = [QuantizationAware(model)] if settings.int8 else []
    still = [g.parameter for p in pressed if not p.momentum for g in p.gammas]
    return loop.Run(
        model=model,
        objective=Objective(Detection(model.heads), *teachers(settings, model, world, accuracy)),
        schedule=schedule,
        world=world,
        accumulate=settings.accumulate,
        clip=settings.clip,
        constraints=[*pressed, *rounding, *more],
        optimizer=make_optimizer(model, schedule.lr, net["momentum"], net["decay"], still),
        precision=accuracy,
        ema=EMA(model, settings.ema) if settings.ema and not settings.sr else None,
    )


def teachers(settings: TrainSettings, model: Darknet, world, accuracy) -> list[Distillation]:
    """The teacher that the settings name, as a term of the objective; empty without one.

    Raises:
        RequestError: a teacher without weights, or with other heads.
    """
    if settings.t_weights is None:
        if settings.t_cfg is not None:
            raise RequestError("--t_cfg", "given without --t_weights", "both", "name the teacher's weights")
        return []
    teacher = load_model(settings.t_cfg or settings.model_def, settings.t_weights)
    teacher = teacher.to(world.device, memory_format=torch.channels_last)
    return [Distillation(teacher, model.heads, settings.t_kl, settings.t_cwd, accuracy.autocast)]


def scorer(
    valid: Loader, data, observer: Observer, stop: StopFlag, amp: bool | torch.dtype, coco: bool = False
) -> Callable:
    """model -> its score on the validation list; Interrupted between two batches once `stop` is raised."""
    ignored = valid.dataset.ignored()

    def score(model):
        return evaluation.evaluate(
            model,
            valid,
            amp=amp,
            names=data.names,
            ignored=ignored,
            coco=coco,
            progress=watched(observer, stop, "stopped while evaluating", "go on with --resume"),
        )

    return score


class Follower:
    """Stands for the Checkpointer in processes that do not write."""

    def __init__(self, checkpointer: Checkpointer):
        self.checkpointer, self.path, self.last = checkpointer, checkpointer.path, checkpointer.last

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_) -> None:
        pass

    def load_state(self, model):
        return self.checkpointer.load_state(model)
