"""List files: one image path a line; and the label file that belongs to an image.

Relative paths start from the folder that the command runs in, as in Darknet. The list may have CRLF line
ends, Windows separators, blank lines, spaces and any Unicode in its paths.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ..base.errors import DatasetError, short
from .datafile import lines_of, portable, read_text

MAX_BYTES = 512 << 20
MAX_PATH = 4096


def read_list(path) -> list[str]:
    """The image paths of a list file, in its order.

    Raises:
        DatasetError: missing, empty, not text, or a line that cannot be a path.
    """
    images = []
    for number, raw in lines_of(read_text(path, "list of images", MAX_BYTES, DatasetError)):
        line = raw.strip(" \t")
        if len(line) > MAX_PATH:
            raise DatasetError(
                f"{path}:{number}", f"a line of {len(line):,} characters", "one image path a line"
            )
        image = portable(line)
        if PurePosixPath(Path(image).as_posix()).name in ("", ".."):
            raise DatasetError(
                f"{path}:{number}", f"{short(line)} is no name of an image", "one image path a line"
            )
        images.append(image)
    if not images:
        raise DatasetError(
            path, "the list is empty", "one image path a line", "run converter.py, or name another list"
        )
    return images


def label_path(image: str) -> str:
    """Where the label of an image lies: the last folder called `images` (else `JPEGImages`) becomes `labels`.

    The extension becomes `.txt`. Without such a folder the label lies beside the image.
    """
    path = PurePosixPath(Path(image).as_posix())
    parts = list(path.parts)
    for name in ("images", "JPEGImages"):
        places = [i for i, part in enumerate(parts[:-1]) if part == name]
        if places:
            parts[places[-1]] = "labels"
            break
    return str(PurePosixPath(*parts).with_suffix(".txt"))


def find_label(image: str) -> str:
    """Where the label of an image really lies: at `label_path`, else beside the image (where AlexeyAB's tools
    put it, in `images/` too), else nowhere, which is `label_path` again.
    """
    path = label_path(image)
    if not os.path.lexists(path):
        beside = str(PurePosixPath(Path(image).as_posix()).with_suffix(".txt"))
        if beside != path and os.path.isfile(beside):
            return beside
    return path
