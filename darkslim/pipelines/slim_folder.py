"""The folder of a slim run: whose it is, which stages are done, and the lock.

    run.json          the settings and the hashes of what was read: only the same run goes on here
    NAME.json         the result of a finished stage, written last: what has one is not done again

A stage that was cut off leaves whole files or none, and is done again, a training from its saved state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from ..base import files, records
from ..base.errors import FileError, RequestError
from ..base.locks import take_lock

MAX_BYTES = 64 << 20
RUN, LOCK = "run.json", ".lock"


class SlimFolder:
    """The stages of one run. A context: inside, no other process works in the folder.

    Args:
        path: the folder. identity: plain values that a run which goes on here must share, by name.

    Raises:
        RequestError: the folder belongs to another run, or holds other things. Nothing was changed.
        TrainingError: another process is at work in it.
    """

    def __init__(self, path, identity: dict):
        self.path, self.identity = Path(path), json.loads(records.to_json(identity))
        self._lock = None
        self.begun = (self.path / RUN).exists()
        if self.begun:
            self._compare(read_json(self.path / RUN))
        elif self.path.exists() and not self.path.is_dir():
            raise RequestError("--work", f"{self.path} is no folder", "a folder of its own")
        elif self.path.is_dir() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise RequestError(
                "--work",
                f"{self.path} holds other files",
                "an empty folder, or that of the same run",
                "give another --work",
            )
        files.check_writable(self.path / RUN)

    def _compare(self, before: dict) -> None:
        for name, mine in self.identity.items():
            if before.get(name) != mine:
                was = json.dumps(before.get(name))[:80]
                raise RequestError(
                    "--work",
                    f"{self.path} belongs to a run with {name} {was}, and this one has "
                    f"{json.dumps(mine)[:80]}",
                    remedy="give the same line again, or another --work",
                )

    def __enter__(self) -> SlimFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.path / LOCK)
        if not self.begun:
            files.save(self.path / RUN, records.to_json(self.identity))
        return self

    def __exit__(self, *_) -> None:
        if self._lock is not None:
            (self.path / LOCK).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def done(self, name: str) -> bool:
        """Whether a stage is finished."""
        return (self.path / f"{name}.json").exists()

    def stage(self, name: str, job: Callable[[], dict], own_seconds: bool = False) -> dict:
        """The result of a stage as it lies on the disk, which is done first unless it lies there.

        Args:
            name: also of its file. job: returns plain values.
            own_seconds: leave the job's `seconds`; else they become what the stage took, of its last piece
                where it was cut off.
        """
        path = self.path / f"{name}.json"
        if not path.exists():
            began = time.perf_counter()
            result = job()
            files.save(
                path,
                records.to_json(
                    result if own_seconds else {**result, "seconds": time.perf_counter() - began}
                ),
            )
        return read_json(path)


def read_json(path: Path) -> dict:
    """A file that a stage left.

    Raises:
        FileError: it is damaged.
    """
    try:
        value = json.loads(files.read_bytes(path, "result", MAX_BYTES))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FileError(
            path, "is no result of a stage", "the JSON that a stage leaves", "remove it to do the stage again"
        )
    return value
