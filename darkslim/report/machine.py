"""The machine that a figure was measured on: enough to read the figure by, nothing that names whose machine
it is.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from ..base.cores import cores


def describe() -> dict:
    """cpu (model name), cores that this process may use, threads that torch uses, gpu (None without), torch
    and python.
    """
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
