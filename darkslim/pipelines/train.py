"""Training as one job: from a cfg and a data set to the kept weights, dense or with sparsity on the BatchNorm
gammas.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..base import devices, files
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.check import Report, check_dataset, shared
from ..network import checkpoints
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..training import distributed, freezing, loop, not_followed
from ..training.checkpointer import Checkpointer
from ..training.faults import plain_errors
from ..training.memory import freed_memory_kept
from ..training.optim import FEW, check_steps
from ..training.penalties import Constraint
from ..training.start import Start, load_start, target_path
from . import sparsity
from .settings import TrainSettings
from .train_identity import identity
from .train_parts import Follower, check_heads, doctor_of, make_loader_of, make_run, scorer
from .training_log import TrainingLog

EPOCHS = 100  # where nothing else is asked for


def train(
    settings: TrainSettings,
    observer: Observer | None = None,
    stop: StopFlag | None = None,
    constrain: Callable[[Darknet], list[Constraint]] | None = None,
    solved: bool = False,
) -> dict:
    """Trains a network and scores the weights that it keeps.

    Args:
        stop: ends the run after a step, with its state saved; see `signals.StopFlag`.
        constrain: makes constraints beside those of the settings, of the network on its device.
        solved: the weights were solved for these constraints, so that they have something to lose.

    Returns:
        map50, map, precision, recall, f1, per_class (on `valid`), start_map50 (of the trained weights that
        it starts from, where the best are kept; else None), kept, checkpoint, start, dose, history,
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
            return _train(settings, model, data, reports, world, observer, stop, constrain, solved)
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
    solved: bool,
) -> dict:
    """Puts the parts together and trains."""
    began, path = begin(settings, model, data, observer)
    if settings.epochs is None:
        settings = replace(settings, epochs=enough(began, len(reports["train"].images), settings.batch_size))
    size = input_size(model.graph, settings.img_size)
    keep = settings.keep or ("last" if settings.sr else "best")
    with (
        make_loader_of(settings, model, reports["train"], size, world) as loader,
        make_loader_of(settings, model, reports["valid"], size, world, False, data.difficult) as valid,
    ):
        judge = scorer(valid, data, observer, stop, amp=False, coco=True)
        model = model.to(world.device, memory_format=torch.channels_last)
        more = constrain(model) if constrain else []
        tuned = began.trained and not (settings.sr or settings.int8 or more)
        run = make_run(settings, model, len(loader), world, observer, more, tuned or solved)
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
                    trained=tuned,
                    observer=log,
                    evaluate=scorer(valid, data, observer, stop, amp=run.precision.dtype or False),
                    evaluation_interval=settings.evaluation_interval,
                    checkpoint_interval=settings.checkpoint_interval,
                )
        if not world.first:
            return {}
        seconds = time.perf_counter() - started
        run.model.gates = None  # they are in the kernels that were written
        checkpoints.load_checkpoint(path, run.model)  # what is scored, in full precision, lies on the disk
        result = judge(run.model)
    observer.say(
        f"{path} ({keep}): mAP50 {result.map50:.4f}, mAP {result.map:.4f}, {seconds:.0f} s; logs in "
        f"{log.folder}"
    )
    if keep == "best" and (sentence := no_better(run)):
        observer.say(sentence)
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


def begin(settings: TrainSettings, model: Darknet, data, observer: Observer) -> tuple[Start, Path]:
    """What the network starts from, loaded and frozen as asked, and where its weights will be kept."""
    began = load_start(model, settings.pretrained_weights, told=observer.say)
    given = (began.path, settings.model_def, settings.data_config, *data.reads)
    reads = [Path(p) for p in given if p is not None]
    trained = settings.pretrained_weights is not None
    path = target_path(settings.checkpoint, began, trained, settings.sr, reads)
    observer.say(f"start: {began}; kept: {path}")
    if frozen := freezing.last_frozen(model, settings.freeze):
        freezing.freeze(model, frozen)
        observer.say(f"layers 0 to {frozen - 1} are not trained")
    return began, path


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
        "start_map50": run.progress.notes.get("start_map50"),
        "history": history,
        **last,
        "steps": run.progress.step,
    }


def no_better(run: loop.Run) -> str | None:
    """What to say where no epoch was better than the trained weights that a run started from."""
    start = run.progress.notes.get("start_map50")
    if start is None or run.progress.best > start:
        return None
    best = max(row["map50"] for row in run.progress.history if "map50" in row)
    return (
        f"kept are the weights of the start, mAP50 {start:.4f}: no epoch was better (the best {best:.4f}); "
        "a lower -lr, more pictures or a teacher (--t_weights) may help"
    )


def enough(began: Start, images: int, batch_size: int) -> int:
    """The epochs of a run that was not told: few pictures are shown more often, for what a network from
    random weights needs are steps.
    """
    steps = max(1, images // batch_size)
    return EPOCHS if began.content != "random" else max(EPOCHS, -(-FEW // steps))
