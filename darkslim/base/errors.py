"""The typed errors of the package: one class per kind of file, one line per error.

Every message names the place, what was found, what was expected and the remedy, in that order:

    config/x.cfg:512 [shortcut] layer 61: from=-3 joins 256 channels with 128; both must match; use a from
    that ...
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` on one line: line ends become blanks, and what a terminal would obey (escapes, stray bytes) is
    spelled out.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in " ".join(text.split("\n"))
    )


class DarkslimError(Exception):
    """Something that the user can put right.

    Args:
        place: where it was found: `file:line [section] layer N`, a flag, a folder.
        found: what stands there.
        expected: what should stand there ("" if `found` says it all).
        remedy: what to do about it ("" if `expected` says it all).
    """

    exit_code = 2

    def __init__(self, place, found: str, expected: str = "", remedy: str = ""):
        self.place, self.found, self.expected, self.remedy = str(place), found, expected, remedy
        body = "; ".join(part for part in (found, expected, remedy) if part)
        line = f"{self.place}: {body}" if self.place else body
        super().__init__(one_line(line))


class FileError(DarkslimError):
    """A path that cannot be read or written as the file it should be."""


class CfgError(DarkslimError):
    """A Darknet cfg that cannot be parsed, or that describes an impossible network."""


class DataFileError(DarkslimError):
    """A `.data` or `.names` file."""


class WeightsError(DarkslimError):
    """A Darknet `.weights` file."""


class CheckpointError(DarkslimError):
    """A `.pth` checkpoint."""


class DatasetError(DarkslimError):
    """Images, labels, lists and annotations."""


class RequestError(DarkslimError):
    """A flag, or a combination of flags, that cannot be met."""


class TrainingError(DarkslimError):
    """Training that cannot go on: a loss that is no number, a folder in use, a mismatched resume."""


class ProofError(DarkslimError):
    """A check on what was about to be written failed: nothing is written, exit 3."""

    exit_code = 3


class Interrupted(DarkslimError):
    """Stopped by a signal after the work so far was saved: exit 130."""

    exit_code = 130


def short(text: str | None, limit: int = 40) -> str:
    """A piece of a file for a message: printable ASCII, cut to `limit` characters."""
    text = (text or "").encode("ascii", "backslashreplace").decode()
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")[1:-1]
