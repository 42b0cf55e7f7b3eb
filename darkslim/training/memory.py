"""Keeping freed memory for the next step.

glibc returns every large block to the system when it is freed, and the next step's activations arrive as
fresh pages, each of which costs a fault: about a tenth of a CPU training step. Kept, they are reused. What
else runs in the process would be measured with other memory than in a process of its own, so the setting ends
with the training.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
NEVER = 2**31 - 1
SETTLED = {
    M_MMAP_MAX: 65536,
    M_MMAP_THRESHOLD: 32 << 20,
    M_TRIM_THRESHOLD: 64 << 20,
}  # where glibc's own rule ends up with large blocks


@contextlib.contextmanager
def freed_memory_kept(wanted: bool = True) -> Iterator[bool]:
    """A context in which glibc keeps freed blocks of any size; gives whether it listened (False on other
    systems).
    """
    libc = _glibc() if wanted else None
    listened = (
        libc is not None and bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, NEVER))
    )
    try:
        yield listened
    finally:
        if libc is not None:
            for parameter, value in SETTLED.items():
                libc.mallopt(parameter, value)
            libc.malloc_trim(0)


def _glibc():
    """The C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):  # another C library
        return None
