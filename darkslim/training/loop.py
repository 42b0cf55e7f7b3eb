"""The training loop. Everything that one may want to swap is a field of `Run`; what remains is meant to be read.

    for epoch: for batch: train_step      forward, loss, backward, penalty, optimizer, average
               evaluate, keep, save state
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from ..errors import Interrupted, TrainingError
from .batches import files_of, micro_batches, to_device
from .distributed import World
from .ema import Average
from .optim import Schedule, set_lr
from .precision import Precision
from .sparsity import NoPenalty, Penalty

LOSSES = ("box", "obj", "cls")


@dataclass
class Run:
    """The parts of a training run and where it stands.

    Attributes:
        model: the network. forward: it, or what wraps it for several processes.
        loss: (raw maps, targets, (H, W), images) -> total, parts.
        accumulate: micro-batches an optimizer step is cut into. clip: largest norm of the gradient, 0 for any.
        epoch, batch, step: epochs done, batches done of the next one, optimizer steps done in all.
        history: one row an epoch. notes: plain values that the caller wants saved with the state.
    """

    model: nn.Module
    loss: Callable
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision
    penalty: Penalty = field(default_factory=NoPenalty)
    world: World = field(default_factory=World)
    average: Average | None = None
    forward: Callable | None = None
    accumulate: int = 1
    clip: float = 0.0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(LOSSES))
    history: list[dict] = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    def __post_init__(self):
        self.forward = self.forward or self.world.wrap(self.model)

    @property
    def judged(self) -> nn.Module:
        """The weights that are evaluated and kept."""
        return self.average.model if self.average else self.model

    def state(self) -> dict:
        """Everything but the weights that a resumed run needs."""
        return {"epoch": self.epoch, "batch": self.batch, "step": self.step, "best": self.best, "sums": list(self.sums),
                "history": self.history, "optimizer": self.optimizer.state_dict(), "scaler": self.precision.scaler.state_dict(),
                "average": self.average.state() if self.average else None, "notes": self.notes, "rng": torch.get_rng_state()}

    def load(self, state: dict) -> None:
        """The inverse of `state`."""
        self.epoch, self.batch, self.step = int(state["epoch"]), int(state["batch"]), int(state["step"])
        self.best, self.sums, self.history = float(state["best"]), list(state["sums"]), list(state["history"])
        self.notes = dict(state["notes"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
        if self.average and state["average"]:
            self.average.load(state["average"])
        torch.set_rng_state(state["rng"].cpu())


class Observer:
    """What the loop tells whoever watches; every method may be overridden."""

    def epoch_starts(self, run: Run, epoch: int, batches: int) -> None: ...

    def step_done(self, run: Run, parts: dict[str, float], lr: float, images: int) -> None: ...

    def epoch_done(self, run: Run, row: dict) -> None: ...


def train_step(run: Run, images: torch.Tensor, targets: torch.Tensor, stop: bool = False, where: Callable[[], str] | None = None):
    """One optimizer step on one batch (this process's share of it).

    Args:
        stop: this process was asked to stop. where: names the batch, for messages.

    Returns:
        The losses {"box", "obj", "cls"} of the share, and whether any process was asked to stop.

    Raises:
        TrainingError: the loss or the gradient is no number; the weights are as before the step.
    """
    images, targets = to_device(images, targets, run.world.device)
    lr = run.schedule(run.step)
    set_lr(run.optimizer, lr)
    run.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(len(LOSSES), device=run.world.device)
    pieces = list(micro_batches(images, targets, run.accumulate))
    for number, (some, truths) in enumerate(pieces):
        with synchronised(run.forward, number == len(pieces) - 1):
            with run.precision.autocast():
                raw = run.forward(some)
            total, parts = run.loss(raw, truths, tuple(some.shape[2:]), images=len(images))
            run.precision.scaler.scale(total).backward()
        sums += torch.stack([parts[name] for name in LOSSES])
    run.precision.scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.clip or float("inf"), foreach=True)
    losses = dict(zip(LOSSES, sums.tolist(), strict=True))
    # float16 gradients may overflow: the scaler then skips the step and lowers its scale
    bad, stop = run.world.agree(not finite(sums, norm if run.precision.kind != "fp16" else None), stop)
    if bad:
        found = ", ".join(f"{k} {v:g}" for k, v in losses.items())
        raise TrainingError(where() if where else f"step {run.step + 1}",
                            f"the loss is no number any more ({found}, gradient {float(norm):g}); the last good checkpoint stays",
                            remedy="lower the learning rate, or look at these images")
    run.penalty.before_step(run.step)
    run.precision.scaler.step(run.optimizer)
    run.precision.scaler.update()
    run.penalty.after_step(run.step, lr)
    if run.average:
        run.average.update(run.model)
    run.step += 1
    return losses, stop


def finite(*values: torch.Tensor | None) -> bool:
    return all(bool(torch.isfinite(v).all()) for v in values if v is not None)


def synchronised(forward, last: bool):
    """Only the last micro-batch exchanges gradients with other processes."""
    return contextlib.nullcontext() if last or not hasattr(forward, "no_sync") else forward.no_sync()


def train(run: Run, loader, epochs: int, *, keeper, stop, evaluate: Callable | None = None, evaluation_interval: int = 1,
          checkpoint_interval: int = 1, keep: str = "best", observer: Observer | None = None) -> None:
    """Trains from where `run` stands to the end of epoch `epochs`.

    Args:
        loader: batches of images (B, 3, H, W) and targets (N, 6); `loader.set_epoch(e)` reshuffles.
        keeper: `checkpoint.Keeper`. stop: `signals.StopFlag`.
        evaluate: model -> result with `.map50 .precision .recall`; called in the first process only.
        keep: "best" by mAP50 or "last".

    Raises:
        Interrupted: a signal came; the step was finished and the state saved.
        TrainingError: the loss is no number.
    """
    observer = observer or Observer()
    while run.epoch < epochs:
        started = time.perf_counter()
        loader.set_epoch(run.epoch)
        run.model.train()
        observer.epoch_starts(run, run.epoch, len(loader))
        train_epoch(run, loader, stop, keeper, observer)
        row = summary(run, len(loader))
        due = run.epoch + 1 == epochs or (evaluation_interval and (run.epoch + 1) % evaluation_interval == 0)
        if due and evaluate and run.world.first:
            result = evaluate(run.judged)
            row.update(map50=result.map50, precision=result.precision, recall=result.recall)
        row["seconds"] = time.perf_counter() - started
        run.history.append(row)
        run.epoch, run.batch, run.sums = run.epoch + 1, 0, [0.0] * len(LOSSES)
        observer.epoch_done(run, row)
        if run.world.first:
            save_epoch(run, row, keeper, keep, run.epoch == epochs or (run.epoch % (checkpoint_interval or epochs) == 0))
        run.world.wait()


def train_epoch(run: Run, loader, stop, keeper, observer: Observer) -> None:
    """The batches of one epoch that are still to be done."""
    for number, (images, targets) in enumerate(loader):
        if number < run.batch:
            continue  # done before the run was interrupted
        def where(number=number):
            files = files_of(loader, number)
            return f"epoch {run.epoch + 1}, batch {number + 1}" + (f" ({', '.join(files)})" if files else "")

        losses, stopped = train_step(run, images, targets, bool(stop), where)
        run.batch = number + 1
        run.sums = [total + losses[name] for total, name in zip(run.sums, LOSSES, strict=True)]
        observer.step_done(run, losses, run.optimizer.param_groups[0]["lr"], len(images) * run.world.size)
        if stopped:
            if run.world.first:
                keeper.save_state(run.model, run.state())
            run.world.wait()
            raise Interrupted(stop.name or "a signal", f"stopped after epoch {run.epoch + 1}, batch {run.batch}; saved {keeper.last}",
                              remedy="go on with --resume")


def summary(run: Run, batches: int) -> dict:
    """The row of the history of the epoch that has just ended, averaged over its batches and all processes."""
    sums = run.world.mean(torch.tensor(run.sums, dtype=torch.float64).to(run.world.device, torch.float32)) / max(1, batches)
    row = {"epoch": run.epoch + 1, **dict(zip(LOSSES, sums.tolist(), strict=True))}
    return {**row, "loss": sum(row[n] for n in LOSSES), "lr": run.optimizer.param_groups[0]["lr"]}


def save_epoch(run: Run, row: dict, keeper, keep: str, due: bool) -> None:
    """Keeps the weights if they are the best (or the last), then the state to resume from."""
    map50 = row.get("map50")
    if keep == "best" and map50 is not None and map50 > run.best:
        run.best = map50
        keeper.keep(run.judged, {"epoch": run.epoch, "map50": map50})
    elif keep == "last" and due:
        keeper.keep(run.judged, {"epoch": run.epoch, "map50": map50})
    if due:
        keeper.save_state(run.model, run.state())
