"""A table that grows by one row an epoch while a network trains."""

from __future__ import annotations

import time
from collections.abc import Sequence

from terminaltables import AsciiTable

COLUMNS = (("lr", 9), ("mAP50", 6), ("precision", 9), ("recall", 6), ("sec", 6), ("left", 8))


class EpochTable:
    """A terminaltables table printed row by row; columns have fixed widths so that the rows stay below each
    other.
    """

    def __init__(self, epochs: int, names: Sequence[str]):
        """`names`: of the parts of the loss, a column each."""
        self.epochs, self.names, self.started, self.rows = epochs, names, time.perf_counter(), 0
        self.columns = (("epoch", 9), *((name, max(8, len(name))) for name in names), *COLUMNS)

    def lines(self, row: dict) -> list[str]:
        """The lines to print for one epoch: the head of the table too the first time."""
        self.rows += 1
        spent = time.perf_counter() - self.started
        left = spent / self.rows * (self.epochs - row["epoch"])
        cells = [
            f"{row['epoch']}/{self.epochs}",
            *(f"{row[name]:.3f}" for name in self.names),
            f"{row['lr']:.2e}",
            *(share(row.get(k)) for k in ("map50", "precision", "recall")),
            f"{row['seconds']:.1f}",
            clock(left),
        ]
        table = AsciiTable(
            [
                [name.rjust(width) for name, width in self.columns],
                [cell.rjust(width) for cell, (_, width) in zip(cells, self.columns, strict=True)],
            ]
        )
        lines = table.table.splitlines()
        return lines[:4] if self.rows == 1 else [lines[3]]


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
