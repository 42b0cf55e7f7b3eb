"""Faults of the machine, told in one line with what helps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..base.errors import TrainingError

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "defaultcpuallocator")
WORKER_DIED = ("dataloader worker", "dataloader timed out")
PEER_DIED = ("connection closed by peer", "connection reset by peer", "gloo", "nccl")


ADVICE = {  # what helps, by what was going on; what --resume refuses is not advised for going on
    "training": (
        "go on with --resume and --accumulate 2 (or more), or start anew with a smaller --batch_size or "
        "--img_size",
        "memory may be short: go on with --resume and a smaller --n_cpu",
    ),
    "work": ("use a smaller --batch_size or --img_size", "memory may be short: use a smaller --n_cpu"),
}


@contextlib.contextmanager
def plain_errors(what: str = "work") -> Iterator[None]:
    """Turns out-of-memory, dead loader workers and dead processes into TrainingError; other errors pass
    through.

    Args:
        what: a key of ADVICE.
    """
    memory, worker = ADVICE[what]
    try:
        yield
    except (RuntimeError, MemoryError, ConnectionError) as e:
        text = str(e).lower()
        if isinstance(e, (MemoryError, torch.OutOfMemoryError)) or any(
            sign in text for sign in OUT_OF_MEMORY
        ):
            raise TrainingError(what, "out of memory", remedy=memory) from e
        if any(sign in text for sign in WORKER_DIED):
            raise TrainingError(what, "a process that loads images died", remedy=worker) from e
        if any(sign in text for sign in PEER_DIED):
            raise TrainingError(
                what, "another process of this run ended", remedy="look at its message"
            ) from e
        raise
