"""What a training run leaves for eyes: TensorBoard events and the picture of the gammas, in a folder of its
own.
"""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from ..base.observer import Observer
from ..report.gammas import GammaTrace
from ..report.tensorboard import Board
from ..training import loop, prunable


class TrainingLog(Observer):
    """Writes events and pictures in the first process, and passes on to an observer what the loop says.

    Attributes:
        folder: where it writes. trace: how the gammas moved.
    """

    def __init__(self, parent, name: str, run: loop.Run, epochs: int, strategy: str, observer: Observer):
        self.run, self.epochs, self.observer = run, epochs, observer
        self.folder = free_folder(Path(parent), f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        self.trace = GammaTrace()
        self.gammas = prunable.prunable_gammas(run.model, strategy)
        self.first = first_batch_norm(run.model)
        self.board: Board | None = None

    def __enter__(self) -> TrainingLog:
        if self.run.world.first:
            self.board = Board(self.folder)
            self.observer.training_starts(self.epochs, self.run.objective.names)
        return self

    def __exit__(self, *_) -> None:
        if self.board:
            self.observer.training_ends()
            self.trace.draw(self.folder / "gammas.png")
            self.board.close()

    def resumed(self) -> None:
        """Takes up the trace of the part of the run that is over."""
        if "trace" in self.run.progress.notes:
            self.trace = GammaTrace.from_dict(self.run.progress.notes["trace"])

    def epoch_starts(self, run, epoch, batches):
        if self.board:
            self.observer.epoch_starts(run, epoch, batches)

    def step_done(self, run, parts, lr, images):
        if self.board:
            self.observer.step_done(run, parts, lr, images)
            self.board.scalars(
                run.progress.step,
                {"train/lr": lr, **{f"train/{name}": value for name, value in parts.items()}},
            )

    def epoch_done(self, run, row):
        if not self.board:
            return
        self.observer.epoch_done(run, row)
        names = (*run.objective.names, "loss")
        self.board.scalars(
            row["epoch"],
            {
                **{f"loss/{name}": row[name] for name in names},
                **{f"metric/{name}": row.get(name) for name in ("map50", "precision", "recall")},
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
        self.board.gammas(row["epoch"], row["gamma_quintiles"], first, values)
        if "map50" in row:
            self.trace.draw(self.folder / "gammas.png")


def first_batch_norm(model: nn.Module):
    """The gammas of the first BatchNorm layer, None without one."""
    return next((m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)


def free_folder(parent: Path, name: str) -> Path:
    number, folder = 1, parent / name
    while folder.exists():
        number, folder = number + 1, parent / f"{name}.{number}"
    return folder
