"""Which boxes are near enough to each other to overlap by much: pairs from a grid, not from all with all.

Two boxes whose IoU is above t have sides that differ by less than 1 / t: the intersection is above t times
the larger area, and no wider than either box. For the same reason their centres are apart by less than

    max(1 - t, (1 - t) / 2t) times the smaller side,

in each direction. So boxes are sorted by the octave (of 1 / t) of their height, in rows as high as that
distance, by their centre's x within a row; a box looks for its partners in two octaves, in up to three rows,
between two places that a binary search finds. The bounds hold for the overlaps of DIoU-NMS as well, which are
smaller, and where a box counts as a pixel wider (its sides are then a pixel longer everywhere).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LEAST = 0.2  # overlap below which (and above 1 minus which) a grid is of no use
_ROOM = 1.001  # rounding of the sides and of the overlap
_CROWD = 100  # pairs a box; above it looking at all is no slower
_AT_ONCE = 16384  # pairs, so that they stay in the cache


def near_pairs(
    columns: np.ndarray, group: np.ndarray | None, thres: float, plus_one: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """All pairs of boxes of one class that may overlap by more than `thres`, and few others.

    Args:
        columns: (5, N) left, top, right, bottom, and the share of its area of which two must be exceeded by
            an intersection; infinite for a box that overlaps nothing.
        group: (N,) class, None: one class. thres: LEAST to 1 - LEAST.

    Returns:
        (earlier, later), int64 positions each; None where there are too many to be worth it.
    """
    real = np.flatnonzero(np.isfinite(columns[4]))
    if not len(real):
        return real, real
    grid = _Grid(columns[:, real], None if group is None else group[real], thres, plus_one)
    wide, first, count = (np.concatenate(parts) for parts in zip(*grid.partners(), strict=True))
    if count.sum() > _CROWD * len(real):
        return None
    one, other = grid.overlapping(wide, first, count)
    one, other = real[grid.order[one]], real[grid.order[other]]
    if group is not None:  # where rounding of large coordinates took a neighbour's cell
        same = group[one] == group[other]
        one, other = one[same], other[same]
    return np.minimum(one, other), np.maximum(one, other)


class _Grid:
    """Boxes in the order of their cells. A cell is a class, an octave of heights and a row; by x within it.

    Attributes:
        order: positions of the boxes that were given.
    """

    def __init__(self, columns: np.ndarray, group: np.ndarray | None, thres: float, plus_one: bool):
        left, top, right, bottom = columns[:4].astype(np.float64)
        width, height = right - left + float(plus_one), bottom - top + float(plus_one)
        x, y = (left + right) / 2, (top + bottom) / 2
        near = _ROOM * max(1 - thres, (1 - thres) / (2 * thres))
        octave = -np.log(thres / _ROOM)
        level = np.floor(np.log(height) / octave)
        row_height = near * np.exp((level + 1) * octave)
        row = np.floor(y / row_height)
        self.plus_one, self.octave = float(plus_one), octave
        self.rows, self.row0 = row.max() - row.min() + 8, row.min() - 4
        self.levels, level0 = level.max() - level.min() + 2, level.min()
        labels = 0.0 if group is None else np.unique(group, return_inverse=True)[1].astype(np.float64)
        first_code = (labels * self.levels + level - level0) * self.rows - self.row0
        self.order = np.lexsort((x, first_code + row))
        into = self.order
        self.columns = columns[:, into]
        self.x, self.y, self.row = x[into] - x.min(), y[into], row[into]
        self.reach_x, self.reach_y = near * width[into], near * height[into]
        self.row_height, self.code = row_height[into], first_code[into]
        codes = self.code + self.row
        starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
        self.cells = codes[starts]
        cell = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(codes))))
        self.span = self.x.max() + 2 * self.reach_x.max() + 1.0
        self.key = cell * self.span + self.x  # one number for the cell and the place in it
        self.reach_x += self.key[-1] * 1e-15

    def partners(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(boxes, the first place where each may have partners, at how many places); every pair once."""
        every = np.arange(len(self.x))
        behind = np.searchsorted(self.key, self.key + self.reach_x, side="right")
        yield every, every + 1, behind - every - 1
        yield self._in_row(every, self.row + 1, (self.y + self.reach_y) / self.row_height, 0.0)
        above = self.row_height * np.exp(self.octave)
        last = (self.y + self.reach_y) / above
        first = np.floor((self.y - self.reach_y) / above)
        for more in range(3):
            yield self._in_row(every, first + more, last, self.rows)

    def _in_row(self, boxes: np.ndarray, row: np.ndarray, last: np.ndarray, higher: float):
        """The same in a given row, for those boxes that reach as far; `higher`: of the next octave."""
        boxes = boxes[row <= last]
        code = self.code[boxes] + higher + row[boxes]
        cell = np.searchsorted(self.cells, code)
        cell[cell == len(self.cells)] = 0
        there = self.cells[cell] == code
        boxes, cell = boxes[there], cell[there]
        at, reach = cell * self.span + self.x[boxes], self.reach_x[boxes]
        first = np.searchsorted(self.key, at - reach)
        return boxes, first, np.searchsorted(self.key, at + reach, side="right") - first

    def overlapping(
        self, boxes: np.ndarray, first: np.ndarray, count: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those pairs whose intersection is large enough, by place."""
        ends = np.cumsum(count)
        found = [(boxes[:0], boxes[:0])]
        left, top, right, bottom, needed = self.columns
        start = 0
        for end in np.searchsorted(ends, np.arange(_AT_ONCE, ends[-1] + _AT_ONCE, _AT_ONCE)) + 1:
            n = count[start:end]
            one = np.repeat(boxes[start:end], n)
            other = np.arange(len(one)) + np.repeat(first[start:end] - (np.cumsum(n) - n), n)
            inter = np.minimum(right[one], right[other]) - np.maximum(left[one], left[other]) + self.plus_one
            high = np.minimum(bottom[one], bottom[other]) - np.maximum(top[one], top[other]) + self.plus_one
            np.maximum(inter, 0, out=inter)
            inter *= high
            hit = np.flatnonzero(inter > needed[one] + needed[other])
            found.append((one[hit], other[hit]))
            start = end
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
