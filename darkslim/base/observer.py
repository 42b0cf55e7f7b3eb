"""What a job tells whoever watches. This one says nothing; a terminal, a test or a notebook overrides what it
wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .signals import StopFlag


class Observer:
    """Every method may be overridden. Those about epochs and steps are called between `training_starts` and
    `training_ends`.
    """

    def say(self, text: str) -> None:
        """A sentence for a person."""

    def detail(self, text: str) -> None:
        """Tables and the like: what a job within a job leaves out."""

    def progress(self, items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
        """`items`, for a bar to be drawn while they are gone through."""
        return items

    def training_starts(self, epochs: int, names: Sequence[str]) -> None:
        """`names`: of the parts of the loss."""

    def epoch_starts(self, run, epoch: int, batches: int) -> None:
        """`run` is a `training.loop.Run`, here and below."""

    def step_done(self, run, parts: dict[str, float], lr: float, images: int) -> None: ...

    def epoch_done(self, run, row: dict) -> None: ...

    def training_ends(self) -> None:
        """Also after an error."""


def watched(observer: Observer, stop: StopFlag, where: str, remedy: str = "") -> Callable:
    """What lower rooms take as `progress`: the observer's bar around items, and Interrupted between two of
    them.
    """

    def progress(items: Iterable, total: int | None = None, desc: str = "") -> Iterable:
        return stop.watch(observer.progress(items, total, desc), where, remedy)

    return progress


class Part(Observer):
    """A job within a job: its sentences are set in, its tables left out, its bars and epochs passed on."""

    def __init__(self, whole: Observer):
        self.whole = whole
        for name in (
            "progress",
            "training_starts",
            "training_ends",
            "epoch_starts",
            "step_done",
            "epoch_done",
        ):
            setattr(self, name, getattr(whole, name))

    def say(self, text: str) -> None:
        self.whole.say("\n".join(f"    {line}" for line in text.splitlines()))
