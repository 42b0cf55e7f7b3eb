"""What stands around every result: the command that made it, its inputs, and what it ran on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .machine import describe

LIBRARIES = ("numpy", "torch", "pillow")


def envelope(command: str, arguments: Sequence[str], inputs: Mapping[str, object]) -> dict:
    """The origin of a result.

    Args:
        command: `train.py` and the like. arguments: the words behind it.
        inputs: flag -> path of what was read.

    Returns:
        command, arguments, versions, inputs (flag, path and SHA-256 of each file that is still there),
        machine.
    """
    return {
        "command": command,
        "arguments": list(arguments),
        "versions": versions(),
        "machine": describe(),
        "inputs": [
            {"flag": flag, "path": str(path), "sha256": digest(path)} for flag, path in inputs.items()
        ],
    }


def versions() -> dict[str, str | None]:
    """Library -> version, None where it is not installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def digest(path) -> str | None:
    """SHA-256 of a file in hexadecimal; None where there is no such file (any more)."""
    try:
        with open(Path(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
