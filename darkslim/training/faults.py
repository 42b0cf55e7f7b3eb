"""Faults of the machine, told in one line with what helps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..base.errors import TrainingError

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "defaultcpuallocator")
WORKER_DIED = ("dataloader worker", "dataloader timed out")
PEER_DIED = ("connection closed by peer", "connection reset by peer", "gloo", "nccl")


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns out-of-memory, dead loader workers and dead processes into TrainingError; other errors pass
    through.
    """
    try:
        yield
    except (RuntimeError, MemoryError, ConnectionError) as e:
        text = str(e).lower()
        if isinstance(e, (MemoryError, torch.OutOfMemoryError)) or any(
            sign in text for sign in OUT_OF_MEMORY
        ):
            raise TrainingError(
                "training",
                "out of memory",
                remedy="use --accumulate 2 (or more), a smaller --batch_size or a smaller "
                "--img_size; the last saved state can be resumed",
            ) from e
        if any(sign in text for sign in WORKER_DIED):
            raise TrainingError(
                "training",
                "a process that loads images died",
                remedy="memory may be short: use a smaller --n_cpu; the last saved state can be resumed",
            ) from e
        if any(sign in text for sign in PEER_DIED):
            raise TrainingError(
                "training", "another process of this run ended", remedy="look at its message"
            ) from e
        raise
