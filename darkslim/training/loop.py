"""The training loop. What one may want to swap is a field of `Run`, where it stands is `Progress`; the rest
is meant to be read.

for epoch: for batch: train_step      forward, loss, backward, constraints, optimizer, average
           save the state, evaluate, keep
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ..base.errors import CheckpointError, Interrupted, TrainingError
from ..base.observer import Observer
from ..network.gates import folded
from .batches import files_of, micro_batches, to_device
from .distributed import World
from .ema import EMA
from .objective import Batch, Objective
from .optim import Schedule, set_lr
from .penalties import Constraint
from .precision import Precision
from .progress import Progress


@dataclass
class Run:
    """The parts of a training run.

    Attributes:
        model: the network. forward: it, or what wraps it for several processes.
        objective: what is minimised.
        constraints: what acts on the weights beside it.
        ema: an average of the weights, which is then what is evaluated and kept.
        accumulate: micro-batches an optimizer step is cut into. clip: largest norm of the gradient, 0 for
            any.
        progress: where the run stands.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision
    constraints: Sequence[Constraint] = ()
    world: World = field(default_factory=World)
    ema: EMA | None = None
    forward: Callable | None = None
    accumulate: int = 1
    clip: float = 0.0
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self):
        self.forward = self.forward or self.world.wrap(self.model)
        self.progress.steps = self.progress.steps or self.schedule.iterations
        names = [c.name for c in self.constraints]
        if len(set(names)) != len(names):
            raise ValueError(f"constraints of one name: {names}")

    @property
    def judged(self) -> nn.Module:
        """The weights that are evaluated."""
        return self.ema.model if self.ema else self.model

    @property
    def kept(self) -> nn.Module:
        """The weights that are kept: those that are judged, as constraints leave them and with gates folded
        into what reads them.
        """
        for constraint in self.constraints:
            constraint.finish(self.judged)
        return folded(self.judged)

    def state(self) -> dict:
        """Everything but the weights that a resumed run needs, part by part."""
        return {
            "progress": self.progress.state(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state(),
            "ema": self.ema.state() if self.ema else None,
            "constraints": {c.name: c.state() for c in self.constraints},
            "rng": torch.get_rng_state(),
        }

    def load(self, state: dict, path="state") -> None:
        """The inverse of `state`.

        Raises:
            CheckpointError: a part is missing or no state of its kind.
        """
        try:
            self.progress.load(state["progress"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.precision.load(state["precision"])
            if self.ema:
                self.ema.load(state["ema"])
            for constraint in self.constraints:
                constraint.load(state["constraints"][constraint.name])
            torch.set_rng_state(state["rng"].cpu())
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as e:
            reason = f"{type(e).__name__}: {e}".split("\n")[0][:120]
            raise CheckpointError(
                path,
                f"its training state cannot be used ({reason})",
                "the state that a run of these flags leaves",
                "start anew without --resume",
            ) from None


def train_step(
    run: Run,
    images: torch.Tensor,
    targets: torch.Tensor,
    stop: bool = False,
    where: Callable[[], str] | None = None,
):
    """One optimizer step on one batch (this process's share of it).

    Args:
        stop: this process was asked to stop. where: names the batch, for messages.

    Returns:
        The parts of the loss of the share by name, and whether any process was asked to stop.

    Raises:
        TrainingError: the loss or the gradient is no number; the weights are as before the step.
    """
    images, targets = to_device(images, targets, run.world.device)
    lr = run.schedule(run.progress.step)
    set_lr(run.optimizer, lr)
    run.optimizer.zero_grad(set_to_none=True)
    sums = backward(run, images, targets)
    run.precision.scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.clip or float("inf"), foreach=True)
    losses = dict(zip(run.objective.names, sums.tolist(), strict=True))
    scaled = (
        run.precision.kind == "fp16"
    )  # its gradients may overflow: the step is then skipped, and the scale lowered
    bad, stop = run.world.agree(not finite(sums, None if scaled else norm), stop)
    if bad:
        found = ", ".join(f"{k} {v:g}" for k, v in losses.items())
        raise TrainingError(
            where() if where else f"step {run.progress.step + 1}",
            f"the loss is no number any more ({found}, gradient {float(norm):g}); the last good checkpoint "
            "stays",
            remedy="lower the learning rate, or look at these images",
        )
    if not scaled or finite(norm):
        apply_step(run, lr)
    run.precision.scaler.update()
    run.progress.step += 1
    return losses, stop


def backward(run: Run, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Forward and backward pass of every micro-batch; the sums of the parts of the loss, in the order of
    their names.
    """
    names = run.objective.names
    sums = torch.zeros(len(names), device=run.world.device)
    pieces = list(micro_batches(images, targets, run.accumulate))
    for number, (some, truths) in enumerate(pieces):
        with synchronised(run.forward, number == len(pieces) - 1):
            with run.precision.autocast():
                raw = run.forward(some)
            total, parts = run.objective(raw, Batch(some, truths, len(images)))
            run.precision.scaler.scale(total).backward()
        sums += torch.stack([parts[name] for name in names])
    return sums


def apply_step(run: Run, lr: float) -> None:
    """The optimizer's step with the constraints around it, and the average behind it."""
    for constraint in run.constraints:
        constraint.before_step(run.progress)
    run.precision.scaler.step(run.optimizer)
    for constraint in run.constraints:
        constraint.after_step(run.progress, lr)
    if run.ema:
        run.ema.update(run.model)


def finite(*values: torch.Tensor | None) -> bool:
    return all(bool(torch.isfinite(v).all()) for v in values if v is not None)


def synchronised(forward, last: bool):
    """Only the last micro-batch exchanges gradients with other processes."""
    return contextlib.nullcontext() if last or not hasattr(forward, "no_sync") else forward.no_sync()


def train(
    run: Run,
    loader,
    epochs: int,
    *,
    checkpointer,
    stop,
    evaluate: Callable | None = None,
    evaluation_interval: int = 1,
    checkpoint_interval: int = 1,
    keep: str = "best",
    trained: bool = False,
    observer: Observer | None = None,
) -> None:
    """Trains from where `run` stands to the end of epoch `epochs`.

    The state is saved before an epoch's evaluation, so that a signal during the evaluation costs nothing but
    it.

    Args:
        loader: batches of images (B, 3, H, W) and targets (N, 6); `loader.set_epoch(e, batch)` reshuffles,
            and begins at a batch.
        checkpointer: `checkpointer.Checkpointer`. stop: `signals.StopFlag`.
        evaluate: model -> result with `.map50 .precision .recall`; called in the first process only.
        keep: "best" by mAP50 or "last".
        trained: the weights of the start may be the best, so that they are judged as well.

    Raises:
        Interrupted: a signal came; the step was finished and the state saved.
        TrainingError: the loss is no number.
    """
    observer, progress = observer or Observer(), run.progress
    if trained and keep == "best" and evaluate and not progress.step:
        keep_start(run, evaluate, checkpointer)
    while progress.epoch < epochs:
        started, last = time.perf_counter(), progress.epoch + 1 == epochs
        loader.set_epoch(progress.epoch, progress.batch)
        run.model.train()
        observer.epoch_starts(run, progress.epoch, len(loader))
        train_epoch(run, loader, stop, checkpointer, observer)
        save_due = last or due(progress.epoch, checkpoint_interval)
        if run.world.first and save_due:
            checkpointer.save_state(run.model, run.state())
        row = summary(run, len(loader))
        if evaluate and run.world.first and (last or due(progress.epoch, evaluation_interval)):
            after = f"after epoch {progress.epoch + 1}"
            row.update(judge(run, evaluate, checkpointer, saved=save_due, when=after))
        row["seconds"] = time.perf_counter() - started
        progress.next_epoch(row)
        if run.world.first:
            keep_weights(run, row, checkpointer, keep, save_due)
            if last:
                checkpointer.save_state(run.model, run.state())
        observer.epoch_done(run, row)
        run.world.wait()


def keep_start(run: Run, evaluate: Callable, checkpointer) -> None:
    """Judges and keeps the weights that the run starts from, until an epoch does better."""
    if run.world.first:
        map50 = judge(run, evaluate, checkpointer, saved=False, when="before epoch 1")["map50"]
        run.progress.best = run.progress.notes["start_map50"] = map50
        checkpointer.keep(run.kept, {"epoch": 0, "map50": map50})
    run.world.wait()


def due(epoch: int, interval: int) -> bool:
    """Whether something that happens every so many epochs happens after this one; 0: never."""
    return bool(interval) and (epoch + 1) % interval == 0


def train_epoch(run: Run, loader, stop, checkpointer, observer: Observer) -> None:
    """The batches of one epoch that are still to be done; the loader begins there."""
    progress = run.progress
    for number, (images, targets) in enumerate(loader, start=progress.batch):

        def where(number=number):
            files = files_of(loader, number)
            return f"epoch {progress.epoch + 1}, batch {number + 1}" + (
                f" ({', '.join(files)})" if files else ""
            )

        losses, stopped = train_step(run, images, targets, bool(stop), where)
        progress.batch = number + 1
        progress.sums = {name: progress.sums.get(name, 0.0) + value for name, value in losses.items()}
        observer.step_done(run, losses, run.optimizer.param_groups[0]["lr"], len(images) * run.world.size)
        if stopped:
            if run.world.first:
                checkpointer.save_state(run.model, run.state())
            run.world.wait()
            raise interrupted(run, stop, checkpointer)


def interrupted(run: Run, stop, checkpointer) -> Interrupted:
    """What is raised once a signal came and the state is saved."""
    done = (
        f"stopped after epoch {run.progress.epoch + 1}, batch {run.progress.batch}; saved {checkpointer.last}"
    )
    return Interrupted(stop.name or "a signal", done, remedy="go on with --resume")


def judge(run: Run, evaluate: Callable, checkpointer, saved: bool, when: str) -> dict:
    """mAP, precision and recall of the weights of now.

    Args:
        saved: the state of now lies on the disk. when: words for a message.

    Raises:
        Interrupted: a signal came; the state of before the evaluation is saved.
    """
    try:
        for constraint in run.constraints:
            constraint.finish(run.judged)
        result = evaluate(run.judged)
    except Interrupted as e:
        if not saved:
            checkpointer.save_state(run.model, run.state())
        done = f"stopped while evaluating {when}; saved {checkpointer.last}"
        raise Interrupted(e.place, done, remedy="go on with --resume") from None
    return {"map50": result.map50, "precision": result.precision, "recall": result.recall}


def summary(run: Run, batches: int) -> dict:
    """The row of the history of the epoch that has just ended, averaged over its batches and all
    processes.
    """
    names = run.objective.names
    sums = torch.tensor([run.progress.sums.get(name, 0.0) for name in names], dtype=torch.float64)
    means = run.world.mean(sums.to(run.world.device, torch.float32)) / max(1, batches)
    row = {"epoch": run.progress.epoch + 1, **dict(zip(names, means.tolist(), strict=True))}
    return {**row, "loss": sum(row[n] for n in names), "lr": run.optimizer.param_groups[0]["lr"]}


def keep_weights(run: Run, row: dict, checkpointer, keep: str, last_due: bool) -> None:
    """Keeps the weights if they are the best, or the last."""
    progress, map50 = run.progress, row.get("map50")
    if keep == "best" and map50 is not None and map50 > progress.best:
        progress.best = map50
        checkpointer.keep(run.kept, {"epoch": progress.epoch, "map50": map50})
    elif keep == "last" and last_due:
        checkpointer.keep(run.kept, {"epoch": progress.epoch, "map50": map50})
