"""What a person at a terminal sees while a pipeline works: sentences, bars, the table of epochs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from ..base.observer import Observer
from ..report.epoch_table import EpochTable


def progress(items: Iterable | None = None, total: int | None = None, desc: str = "", **kwargs):
    """A tqdm bar, silent when the output is no terminal."""
    from tqdm import tqdm

    return tqdm(
        items,
        total=total,
        desc=desc,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
        **kwargs,
    )


class Console(Observer):
    """Prints what a pipeline says, draws its bars, and a row of a table for every epoch."""

    def __init__(self):
        self.table: EpochTable | None = None
        self.bar: StepBar | None = None

    def say(self, text: str) -> None:
        print(text, flush=True)

    def detail(self, text: str) -> None:
        self.say(text)

    def progress(self, items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
        return progress(items, total=total, desc=desc)

    def training_starts(self, epochs: int, names: Sequence[str]) -> None:
        self.table, self.epochs = EpochTable(epochs, names), epochs

    def epoch_starts(self, run, epoch: int, batches: int) -> None:
        self.bar = StepBar(epoch + 1, self.epochs, batches, run.progress.batch)

    def step_done(self, run, parts: dict[str, float], lr: float, images: int) -> None:
        self.bar.step(parts, lr, images)

    def epoch_done(self, run, row: dict) -> None:
        self.bar.close()
        for line in self.table.lines(row):
            self.say(line)

    def training_ends(self) -> None:
        if self.bar:
            self.bar.close()


class StepBar:
    """A tqdm bar over the batches of an epoch with the running losses, the learning rate and images a
    second.
    """

    def __init__(self, epoch: int, epochs: int, batches: int, done: int = 0):
        self.bar = progress(total=batches, desc=f"epoch {epoch}/{epochs}", initial=done)
        self.sums: dict[str, float] = {}
        self.steps, self.images, self.started = 0, 0, time.perf_counter()

    def step(self, parts: dict[str, float], lr: float, images: int) -> None:
        self.steps, self.images = self.steps + 1, self.images + images
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if not self.bar.disable:
            shown = {name: f"{value / self.steps:.3f}" for name, value in self.sums.items()}
            speed = self.images / max(1e-9, time.perf_counter() - self.started)
            self.bar.set_postfix({**shown, "lr": f"{lr:.1e}", "img/s": f"{speed:.1f}"}, refresh=False)
        self.bar.update(1)

    def close(self) -> None:
        self.bar.close()
