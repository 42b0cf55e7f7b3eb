"""Keeping freed memory for the next step.

glibc returns every large block to the system when it is freed, and the next step's activations arrive as fresh pages,
each of which costs a fault: about a tenth of a CPU training step. Kept, they are reused.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed blocks of any size; returns whether it listened (False on other systems)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
