"""What a training run leaves for eyes: TensorBoard events and the picture of the gammas, in a folder of its
own.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from ..base.errors import FileError
from ..base.observer import Observer
from ..report.gammas import GammaTrace
from ..report.tensorboard import Board
from ..training import loop, prunable
from .doctor import Doctor

SOON = 10.0  # seconds before the picture of the gammas is drawn; it always is at the end
RISEN = 1.25  # times the loss of the first epoch
RARELY = 20  # times as long as a picture took, it is not drawn again


class TrainingLog(Observer):
    """Writes events and pictures in the first process, and passes on to an observer what the loop says.

    Attributes:
        doctor: looks at each epoch of sparsity training; what it finds is in the rows and the events.
        folder: where it writes. trace: how the gammas moved.
    """

    def __init__(
        self,
        parent,
        name: str,
        run: loop.Run,
        epochs: int,
        strategy: str,
        observer: Observer,
        doctor: Doctor | None = None,
    ):
        self.doctor = doctor
        self.columns = [name for constraint in run.constraints for name in constraint.columns]
        self.run, self.epochs, self.observer = run, epochs, observer
        self.folder = free_folder(Path(parent), f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        self.trace = GammaTrace()
        self.gammas = prunable.pressed(run.model, strategy)
        self.first = first_batch_norm(run.model)
        self.board: Board | None = None
        self.draw_again = time.monotonic() + SOON
        self.failed = False  # the disk did not take the events
        self.warned = False  # of a loss that rises

    def __enter__(self) -> TrainingLog:
        if self.run.world.first:
            with self.unharmed():
                self.board = Board(self.folder)
            looked = ("near_zero", "safe") if self.doctor and self.gammas else ()
            looked = (*looked, *self.columns)
            self.observer.training_starts(self.epochs, (*self.run.objective.names, *looked))
        return self

    def __exit__(self, *_) -> None:
        if self.run.world.first:
            self.observer.training_ends()
            with self.unharmed():
                self.trace.draw(self.folder / "gammas.png")
            if self.board:
                with self.unharmed():
                    self.board.close()

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """A context whose errors of the disk are warned about once, and end the events: a run of days must
        not end for want of a picture.
        """
        try:
            yield
        except (OSError, FileError) as e:
            if not self.failed:
                why = getattr(e, "strerror", None) or e
                warnings.warn(
                    f"{self.folder}: logs and pictures are given up ({why}); the training goes on",
                    stacklevel=3,
                )
            self.failed = True

    def resumed(self) -> None:
        """Takes up the trace of the part of the run that is over."""
        if "trace" in self.run.progress.notes:
            self.trace = GammaTrace.from_dict(self.run.progress.notes["trace"])

    def epoch_starts(self, run, epoch, batches):
        if self.run.world.first:
            self.observer.epoch_starts(run, epoch, batches)

    def step_done(self, run, parts, lr, images):
        if self.run.world.first:
            self.observer.step_done(run, parts, lr, images)
            self.scalars(run.progress.step, {"train/lr": lr, **{f"train/{n}": v for n, v in parts.items()}})

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Events, as long as the disk takes them."""
        if self.board and not self.failed:
            with self.unharmed():
                self.board.scalars(step, values)

    def epoch_done(self, run, row):
        if not self.run.world.first:
            return
        warned = self.doctor.look(row) if self.doctor else []
        for constraint in self.run.constraints:
            row.update(constraint.report())
        self.observer.epoch_done(run, row)
        for text in warned:
            warnings.warn(text, stacklevel=2)
        if not self.warned and (text := risen(run)):
            self.warned = True
            warnings.warn(text, stacklevel=2)
        names = (*run.objective.names, "loss")
        self.scalars(
            row["epoch"],
            {
                **{f"loss/{name}": row[name] for name in names},
                **{f"metric/{name}": row.get(name) for name in ("map50", "precision", "recall")},
                **{f"sparsity/{name}": row.get(name) for name in ("near_zero", "safe", *self.columns)},
            },
        )
        self.remember(row)

    def remember(self, row: dict) -> None:
        """Adds the gammas of this moment to the row of the history, the trace and the events."""
        row["gamma_quintiles"] = prunable.quintiles(self.gammas)
        if not self.gammas or self.first is None:
            return
        values, first = prunable.values(self.gammas).numpy(), self.first.detach().float().cpu().numpy()
        self.trace.add(row["epoch"], row["gamma_quintiles"], first, values)
        self.run.progress.notes["trace"] = self.trace.to_dict()
        if self.failed:
            return
        with self.unharmed():
            if self.board:
                self.board.gammas(row["epoch"], row["gamma_quintiles"], first, values)
            if "map50" in row:
                self.draw()

    def draw(self) -> None:
        """The picture of the gammas, unless that would take more than a twentieth of the time."""
        if time.monotonic() >= self.draw_again:
            began = time.monotonic()
            self.trace.draw(self.folder / "gammas.png")
            now = time.monotonic()
            self.draw_again = now + RARELY * (now - began)


def risen(run: loop.Run) -> str | None:
    """A warning where the loss is well above that of the first epoch, though nothing but the loss pulls at
    the weights.
    """
    losses = [row["loss"] for row in run.progress.history]
    if run.constraints or len(losses) < 2 or losses[-1] <= RISEN * losses[0]:
        return None
    rate = run.schedule.lr
    return (
        f"the loss rose from {losses[0]:.3g} to {losses[-1]:.3g} since the first epoch: the learning rate "
        f"{rate:.3g} is too high for these weights; stop, and try -lr {rate / 3:.1g}"
    )


def first_batch_norm(model: nn.Module):
    """The gammas of the first BatchNorm layer, None without one."""
    return next((m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)


def free_folder(parent: Path, name: str) -> Path:
    number, folder = 1, parent / name
    while folder.exists():
        number, folder = number + 1, parent / f"{name}.{number}"
    return folder
