"""`darkslim train ...`: the commands where the package was installed and no checkout is at hand."""

from __future__ import annotations

import sys
from pathlib import Path

from ..base.errors import one_line
from .run import script

COMMANDS = {
    "train": "train a detector, dense or sparse",
    "test": "score a detector",
    "test_prune": "cut a detector, with proof",
    "slim": "from a cfg and a data set to a slimmer network",
    "detect": "find objects in pictures",
    "export": "write a detector in another format",
    "compress": "smaller files: shared values, entropy-coded",
    "converter": "make a Darknet data set of another one",
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command that the first word names.

    Returns:
        Its exit code; 2 where there is no such command.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] not in COMMANDS:
        print(f"error: {one_line(words[0])} is no command; found {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return script(words[0], words[1:], f"darkslim {words[0]}")


def usage() -> str:
    """What there is, and where the cfgs that come along lie."""
    package = Path(__file__).resolve().parents[1]
    cfgs = package / "config" if (package / "config").is_dir() else package.parent / "config"
    lines = [f"  darkslim {name:12}{what}" for name, what in COMMANDS.items()]
    return "\n".join(["usage: darkslim COMMAND ...; darkslim COMMAND --help", *lines, f"cfgs: {cfgs}"])
