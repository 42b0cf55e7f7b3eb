"""SIGINT and SIGTERM: the first only sets a flag, which the loop reads between two steps; the second stops at once."""

from __future__ import annotations

import signal
import threading


class StopFlag:
    """A context in which SIGINT and SIGTERM ask for an orderly end.

    `flag.name` is the signal's name once it came. A second signal raises KeyboardInterrupt: files on disk stay whole,
    since they are only ever replaced.
    """

    def __init__(self):
        self.name: str | None = None
        self._before: dict = {}

    def __bool__(self) -> bool:
        return self.name is not None

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number, frame) -> None:
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
