"""One process at a time: a locked file, which the system frees when the process dies."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .errors import FileError, TrainingError


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
    with contextlib.suppress(OSError):  # the lock holds without a name in it, on a full disk too
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), f"{os.getpid()}\n".encode())
    return handle


@contextlib.contextmanager
def locked(path: Path):
    """A context in which no other process holds `path`, whose folder must be there or can be made.

    Raises:
        TrainingError: one does. FileError: the file cannot be made.
    """
    path = Path(path)
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise FileError(
            path.parent, f"cannot be made ({e.strerror or e})", remedy="choose another folder"
        ) from None
    handle = take_lock(path)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            handle.close()
        if made:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
