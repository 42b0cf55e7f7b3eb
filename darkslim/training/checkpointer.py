"""What a run leaves on disk: the kept weights at PATH, the state to resume from beside it, and a lock.

    checkpoints/yolov3_ckpt.pth        the best (or the last) weights
    checkpoints/yolov3_ckpt.last.pth   weights, optimizer, average, position: what --resume reads
    checkpoints/yolov3_ckpt.lock       held while the run lives; the system frees it when the process dies

Files of an earlier run are never overwritten: they get a number (`yolov3_ckpt.1.pth`) before the first save.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..base import files
from ..base.errors import CheckpointError, FileError, TrainingError
from ..network import checkpoints


class Checkpointer:
    """Saves and loads the files of one run.

    Args:
        path: where the kept weights go.
        identity: plain values that a resumed run must share (cfg hash, data hash, epochs ...), by name.
        told: called with a sentence when files of an earlier run were given another name.
    """

    def __init__(self, path, identity: dict, told: Callable[[str], None] | None = None):
        self.path = Path(path)
        self.identity = identity
        self.fresh = True
        self.told = told or (lambda sentence: None)
        self._lock = None

    @property
    def last(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.last{self.path.suffix}")

    @property
    def lock(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.lock")

    def __enter__(self) -> Checkpointer:
        self._made_folder = not self.path.parent.exists()
        check_writable(self.path)
        files.check_writable(self.last)
        self._lock = take_lock(self.lock)
        return self

    def __exit__(self, *_) -> None:
        if self._lock is not None:
            self.lock.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        if self._made_folder and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()  # the run ended before it had anything to save

    def keep(self, model: nn.Module, extra: dict) -> None:
        """Writes the weights that the run is about."""
        self._set_aside()
        checkpoints.save_checkpoint(self.path, model, {**extra, "identity": self.identity})

    def save_state(self, model: nn.Module, state: dict) -> None:
        """Writes everything that `load_state` needs."""
        self._set_aside()
        checkpoints.save_checkpoint(self.last, model, {**state, "identity": self.identity})

    def load_state(self, model: nn.Module) -> dict:
        """Loads the weights of the last state into `model` and returns the rest of it.

        Raises:
            TrainingError: there is none, or it belongs to a run with another cfg, data or setting.
        """
        if not self.last.exists():
            raise TrainingError(
                self.last,
                "there is nothing to resume",
                "the state that a run leaves beside its checkpoint",
                "start without --resume, or give the --checkpoint of that run",
            )
        state = checkpoints.read_checkpoint(self.last).get("extra")
        state = state if isinstance(state, dict) else {}
        identity = state.get("identity")
        if not isinstance(identity, dict) or "progress" not in state:
            raise CheckpointError(
                self.last,
                "holds no training state of this version",
                "the .last.pth of a run",
                "start anew without --resume",
            )
        for name, mine in self.identity.items():
            if identity.get(name) != mine:
                raise TrainingError(
                    self.last,
                    f"was made with {name} {identity.get(name)}, and this run has {mine}",
                    remedy="resume with the same cfg, data and flags, or start anew without --resume",
                )
        checkpoints.load_checkpoint(self.last, model)
        self.fresh = False
        return state

    def _set_aside(self) -> None:
        """Gives the files of an earlier run a number, once, just before the first save."""
        if not self.fresh:
            return
        self.fresh = False
        number = free_number(self.path)
        for old in (self.path, self.last):
            if old.exists():
                new = numbered(old, number, self.path)
                link(old, new)
                self.told(f"the earlier {old} is now {new}")


def numbered(old: Path, number: int, path: Path) -> Path:
    """`ckpt.pth` -> `ckpt.1.pth`; `ckpt.last.pth` -> `ckpt.1.last.pth`."""
    return old.with_name(f"{path.stem}.{number}{old.name[len(path.stem) :]}")


def free_number(path: Path) -> int:
    number = 1
    while (
        path.with_name(f"{path.stem}.{number}{path.suffix}").exists()
        or path.with_name(f"{path.stem}.{number}.last{path.suffix}").exists()
    ):
        number += 1
    return number


def link(old: Path, new: Path) -> None:
    """A second name for a file, so that it is never without one; a copy where the file system has no
    links.
    """
    try:
        os.link(old, new)
    except OSError:
        files.save(new, lambda temp: shutil.copyfile(old, temp))


def check_writable(path: Path) -> None:
    """Raises FileError unless a file can be made in the folder of `path`, which is created."""
    files.check_writable(path)
    try:  # the system's word for it, since some file systems allow less than their permissions say
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".tmp"):
            pass
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise FileError(
            path.parent, f"cannot be written ({reason})", remedy="choose another folder with --checkpoint"
        ) from None


def take_lock(path: Path):
    """An open, locked file, or TrainingError if another process holds it. The lock dies with the process."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: go without
        return None
    try:
        handle = open(path, "a+")
    except OSError as e:
        raise FileError(
            path, f"cannot be written ({e.strerror or e})", "a lock file", "move away what lies there"
        ) from None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        handle.seek(0)
        owner = handle.read(20).strip() or "unknown"
        handle.close()
        raise TrainingError(
            path,
            f"another run (process {owner}) is writing these files",
            remedy="wait for it, or give another --checkpoint",
        ) from None
    except OSError:
        return handle  # a file system without locks
    handle.seek(0)
    handle.truncate()
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle
