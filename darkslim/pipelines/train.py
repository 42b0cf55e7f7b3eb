"""Training as one job: from a cfg and a data set to the kept weights, dense or with sparsity on the BatchNorm
gammas.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .. import evaluation
from ..base import devices, files
from ..base.errors import CfgError, RequestError
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.augment import Augment
from ..data.balance import repeat_factors
from ..data.check import Report, check_dataset, shared
from ..data.dataset import ListDataset
from ..data.loader import Loader, MultiScale, make_loader
from ..data.mosaic import DARKNETS
from ..network import checkpoints, schema
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..network.weights import load_model
from ..training import distributed, freezing, loop, not_followed, precision
from ..training.checkpointer import Checkpointer
from ..training.distillation import Distillation
from ..training.ema import EMA
from ..training.faults import plain_errors
from ..training.memory import freed_memory_kept
from ..training.objective import Detection, Objective
from ..training.optim import check_steps, make_optimizer, make_schedule
from ..training.penalties import Constraint
from ..training.quantization_aware import QuantizationAware
from ..training.start import Start, load_start, target_path
from . import sparsity
from .doctor import PICTURES, Doctor
from .settings import TrainSettings
from .training_log import TrainingLog

EPOCHS = 100  # where nothing else is asked for
FEW = 2000  # optimizer steps below which training from random weights is too short, see docs/training.md
IDENTITY = (
    "epochs",
    "batch_size",
    "resize",
    "learning_rate",
    "schedule",
    "ema",
    "clip",
    "freeze",
    "sr",
    "s",
    "sr_penalty",
    "sr_schedule",
    "strategy",
    "int8",
    "multiscale_training",
    "vflip",
    "mosaic",
    "balance",
    "t_cfg",
    "t_weights",
    "t_kl",
    "t_cwd",
    "amp",
    "seed",
)  # what a resumed run must share with the one that it goes on with


def train(
    settings: TrainSettings,
    observer: Observer | None = None,
    stop: StopFlag | None = None,
    constrain: Callable[[Darknet], list[Constraint]] | None = None,
) -> dict:
    """Trains a network and scores the weights that it keeps.

    Args:
        stop: ends the run after a step, with its state saved; see `signals.StopFlag`.
        constrain: makes constraints beside those of the settings, of the network on its device.

    Returns:
        map50, map, precision, recall, f1, per_class (on `valid`), kept, checkpoint, start, dose, history,
        gammas, steps, seconds, seed, img_size, logdir. Empty in processes of a distributed run other than the
        first.

    Raises:
        DarkslimError: an input or a setting is wrong, and nothing was changed; or training cannot go on.
        Interrupted: `stop` was raised; the state is saved.
    """
    stop = StopFlag() if stop is None else stop  # one that was not raised is false
    device = devices.device(settings.device)
    files.check_writable(Path(settings.logdir) / "run")
    devices.seed_everything(settings.seed)
    data = datafile.read_data(settings.data_config)
    model = Darknet(settings.model_def)
    check_heads(model, data)
    if settings.schedule == "steps":
        check_steps(model.cfg.net)
    lists = {key: data.list_path(key) for key in ("train", "valid")}
    world = distributed.join(device)
    observer = observer if observer and world.first else Observer()
    try:
        with freed_memory_kept(device.type == "cpu"):
            reports = {
                key: check_dataset(
                    path,
                    data.classes,
                    need_boxes=True,
                    save=False,
                    **settings.reading,
                    progress=watched(observer, stop, "stopped while looking at the pictures"),
                )
                for key, path in lists.items()
            }
            if (warning := shared(reports["train"], reports["valid"])) is not None:
                observer.say(warning)
            for key, report in reports.items():
                observer.say(
                    f"{key}: {report.counts['images']} images, {report.counts['boxes']} boxes in "
                    f"{report.list_path}"
                )
            return _train(settings, model, data, reports, world, observer, stop, constrain)
    finally:
        world.close()


def _train(
    settings: TrainSettings,
    model: Darknet,
    data,
    reports: dict[str, Report],
    world,
    observer: Observer,
    stop: StopFlag,
    constrain: Callable | None,
) -> dict:
    """Puts the parts together and trains."""
    began = load_start(model, settings.pretrained_weights, told=observer.say)
    reads = [
        Path(p) for p in (began.path, settings.model_def, settings.data_config, *data.reads) if p is not None
    ]
    path = target_path(
        settings.checkpoint, began, settings.pretrained_weights is not None, settings.sr, reads
    )
    observer.say(f"start: {began}; kept: {path}")
    if settings.epochs is None:
        settings = replace(settings, epochs=enough(began, len(reports["train"].images), settings.batch_size))
    size = input_size(model.graph, settings.img_size)
    if frozen := freezing.last_frozen(model, settings.freeze):
        freezing.freeze(model, frozen)
        observer.say(f"layers 0 to {frozen - 1} are not trained")
    keep = settings.keep or ("last" if settings.sr else "best")
    with (
        make_loader_of(settings, model, reports["train"], size, world) as loader,
        make_loader_of(settings, model, reports["valid"], size, world, False, data.difficult) as valid,
    ):
        judge = scorer(valid, data, observer, stop, amp=False, coco=True)
        model = model.to(world.device, memory_format=torch.channels_last)
        more = constrain(model) if constrain else []
        run = make_run(settings, model, len(loader), world, observer, more)
        dose = sparsity.report_dose(run, observer)
        announce(settings, began, run, len(loader), size, observer)
        started = time.perf_counter()
        checkpointer = Checkpointer(path, identity(settings, model, reports, size), observer.say)
        name = f"{Path(settings.model_def).stem}{'-sr' if settings.sr else ''}"
        doctor = doctor_of(settings, run, reports["train"], size) if settings.sr and world.first else None
        log = TrainingLog(settings.logdir, name, run, settings.epochs, settings.strategy, observer, doctor)
        with checkpointer if world.first else Follower(checkpointer) as checkpointer:
            if settings.resume:
                run.load(checkpointer.load_state(model), checkpointer.last)
                log.resumed()
                observer.say(f"resumed after epoch {run.progress.epoch}, batch {run.progress.batch}")
            if world.first:
                for report in reports.values():
                    report.remember()  # all that could be wrong has been looked at
            with log, plain_errors("training"):
                loop.train(
                    run,
                    loader,
                    settings.epochs,
                    checkpointer=checkpointer,
                    stop=stop,
                    keep=keep,
                    observer=log,
                    evaluate=scorer(valid, data, observer, stop, amp=run.precision.dtype or False),
                    evaluation_interval=settings.evaluation_interval,
                    checkpoint_interval=settings.checkpoint_interval,
                )
        if not world.first:
            return {}
        seconds = time.perf_counter() - started
        run.model.gates = None  # they are in the kernels that were written
        checkpoints.load_checkpoint(
            path, run.model
        )  # what lies on the disk is what is scored, in full precision
        result = judge(run.model)
    observer.say(
        f"{path} ({keep}): mAP50 {result.map50:.4f}, mAP {result.map:.4f}, {seconds:.0f} s; logs in "
        f"{log.folder}"
    )
    return {
        **told(result, run),
        "kept": keep,
        "dose": dose,
        "s": run.constraints[0].s if settings.sr else None,
        "seconds": seconds,
        "seed": settings.seed,
        "checkpoint": path,
        "logdir": log.folder,
        "start": str(began),
        "img_size": size,
        "gammas": log.trace.to_dict(),
    }


def announce(
    settings: TrainSettings, began: Start, run: loop.Run, batches: int, size, observer: Observer
) -> None:
    """What a run says before its first step: what it will not follow of the cfg, how long it is, and whether
    that is enough.
    """
    for sentence in not_followed.sentences(run.model.cfg):
        observer.say(sentence)
    observer.say(
        f"{batches} steps of {settings.batch_size} images an epoch, {settings.epochs} epochs at "
        f"{size[1]}x{size[0]}, learning rate {run.schedule.lr:g} ({settings.schedule}), "
        f"{run.world.device.type}, {run.world.size} process(es), precision {run.precision.kind}"
    )
    if began.content == "random" and run.schedule.iterations < FEW:
        observer.say(
            f"short: {run.schedule.iterations} steps are few for random weights, expect a low mAP: "
            f"--epochs {-(-FEW // batches)}, a smaller --batch_size, or trained weights (-pre) help"
        )


def told(result, run: loop.Run) -> dict:
    """What a score and the history of a run are reported as."""
    scores = ("map50", "map", "precision", "recall", "f1", "per_class")
    history = run.progress.history
    last = {key: history[-1].get(key) for key in ("near_zero", "safe")}
    return {
        **{key: getattr(result, key) for key in scores},
        "history": history,
        **last,
        "steps": run.progress.step,
    }


# ------------------------------------------------------------------------------------------------------------
# - the parts


def enough(began: Start, images: int, batch_size: int) -> int:
    """The epochs of a run that was not told: few pictures are shown more often, for what a network from
    random weights needs are steps.
    """
    steps = max(1, images // batch_size)
    return EPOCHS if began.content != "random" else max(EPOCHS, -(-FEW // steps))


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
    settings: TrainSettings, model: Darknet, batches: int, world, observer: Observer, more: list[Constraint]
) -> loop.Run:
    """The parts that the settings and the cfg ask for, and further constraints."""
    net = schema.values(model.cfg.net)
    schedule, said = make_schedule(net, batches * settings.epochs, settings.learning_rate, settings.schedule)
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


def identity(settings: TrainSettings, model: Darknet, reports: dict[str, Report], size) -> dict:
    """What a resumed run must share with the one that it goes on with."""
    content = {f"the data of {key}": fingerprint(report) for key, report in reports.items()}
    return {
        "cfg hash": model.cfg.hash[:16],
        **content,
        "classes": model.heads[0].classes,
        "img_size": list(size),
        **{f"--{name}": getattr(settings, name) for name in IDENTITY},
    }


def fingerprint(report: Report) -> str:
    """A hash of the paths, sizes and boxes of a data set."""
    parts = (
        "\n".join(report.images).encode(),
        report.sizes.tobytes(),
        report.rows.tobytes(),
        report.offsets.tobytes(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


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
