"""SIGINT and SIGTERM: the first only sets a flag, which work reads between two steps; the second stops at
once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator

from .errors import Interrupted


class StopFlag:
    """True once an orderly end was asked for. As a context, SIGINT and SIGTERM ask for it; without one nobody
    does.

    `flag.name` is the signal's name once it came. A second signal raises KeyboardInterrupt: files on disk
    stay whole, since they are only ever replaced.
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

    def check(self, where: str, remedy: str = "") -> None:
        """Raises Interrupted if an end was asked for."""
        if self:
            raise Interrupted(self.name, where, remedy=remedy)

    def watch(self, items: Iterable, where: str, remedy: str = "") -> Iterator:
        """`items`, but Interrupted between two of them once an end was asked for."""
        for item in items:
            self.check(where, remedy)
            yield item

    def _handle(self, number, frame) -> None:
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
