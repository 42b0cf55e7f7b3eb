"""One label file: rows of `class x y w h`, the box as centre and size relative to the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..base.errors import DatasetError
from .datafile import lines_of, read_text

MAX_BYTES = 16 << 20
ROUNDING = 1e-3  # how far a value may lie outside of 0..1 and still be rounding, not a mistake
# side of a box that is still one: a pixel of the largest picture is more than a hundred times that
LEAST = 1e-7
VISIBLE = 1e-4  # a box that sticks out by less than this is not worth counting


@dataclass
class Labels:
    """The good rows of a label file and what is wrong with the others.

    Attributes:
        rows: (n, 5) float32: class, x, y, w, h in 0..1, clipped to the image.
        problems: (line, what is wrong) of every row that cannot be used.
        clipped: how many boxes stuck out of the image.
        duplicates: how many rows repeated an earlier one; each is kept once.
    """

    rows: np.ndarray
    problems: list[tuple[int, str]] = field(default_factory=list)
    clipped: int = 0
    duplicates: int = 0


def read_labels(path, classes: int) -> Labels:
    """Reads and checks a label file.

    Raises:
        DatasetError: it is no text file. Bad rows do not raise: they are in `.problems`.
    """
    return parse_labels(read_text(path, "label file", MAX_BYTES, DatasetError), classes)


def parse_labels(text: str, classes: int) -> Labels:
    """The rows of a label file's text; blank lines are skipped."""
    result = Labels(np.zeros((0, 5), np.float32))
    rows: dict[tuple, None] = {}
    for number, line in lines_of(text):
        row = parse_row(line, classes)
        if isinstance(row, str):
            result.problems.append((number, row))
            continue
        if row in rows:
            result.duplicates += 1
        rows[row] = None
    if rows:
        result.rows, result.clipped = clip(np.array(list(rows), np.float64))
    return result


def parse_row(line: str, classes: int) -> tuple | str:
    """One row as numbers, the centre pulled inside, or what is wrong with it."""
    words = line.split()
    if len(words) != 5:
        return f"{len(words)} columns, expected 5: class x y w h"
    try:
        values = tuple(float(word) for word in words)
        if "_" in line or not line.isascii():  # Python reads 1_0 and other scripts' digits; nobody else does
            raise ValueError
    except ValueError:
        return f"{line.strip()[:60]!r} is not five numbers"
    if not all(math.isfinite(v) for v in values):
        return f"{line.strip()[:60]!r} has a value that is not finite"
    label, x, y, w, h = values
    if label != int(label):
        return f"class {words[0]} is no whole number"
    if not 0 <= label < classes:
        return f"class {int(label)}, expected 0 to {classes - 1}"
    if min(x, y, w, h) < -ROUNDING or max(x, y, w, h) > 1 + ROUNDING:
        name, value = next(
            (n, v) for n, v in zip("xywh", values[1:], strict=True) if not -ROUNDING <= v <= 1 + ROUNDING
        )
        pixels = " (pixels? divide by the width and height of the image)" if value > 2 else ""
        return f"{name}={value:g} is outside of 0 to 1{pixels}"
    if w < LEAST or h < LEAST:
        return f"a box of {'width' if w < LEAST else 'height'} {min(w, h):g}"
    return (
        label,
        min(max(x, 0.0), 1.0),
        min(max(y, 0.0), 1.0),
        w,
        h,
    )  # the centre is inside, so something is left after clipping


def clip(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Boxes clipped to the image.

    Args:
        rows: (n, 5) class, x, y, w, h.

    Returns:
        float32 rows, and how many boxes stuck out visibly.
    """
    low, high = rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2
    out = ((low < -VISIBLE) | (high > 1 + VISIBLE)).any(1)
    # boxes that touch the border to rounding keep their very numbers
    edge = ((low < 0) | (high > 1)).any(1)
    low, high = low.clip(0, 1), high.clip(0, 1)
    result = rows.copy()
    result[edge, 1:3] = ((low + high) / 2)[edge]
    result[edge, 3:5] = (high - low)[edge]
    return result.astype(np.float32), int(out.sum())
