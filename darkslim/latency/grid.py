"""Times on a grid of widths, and what lies between.

Kernels compute channels in blocks of 16 and treat what does not fill a block apart: 25 channels cost more
than 32 in many a convolution. So an axis of a convolution holds two ladders: multiples of 16, for such
widths, and widths in the middle of a block, for all others. A dense network lies on the first and a pruned
one mostly on the second; one ladder for both would flatter the cut.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 16
SHARES = (1, 1 / 2, 1 / 4, 1 / 16)  # time is so nearly linear in a width that finer steps bought no accuracy


@dataclass(frozen=True)
class Grid:
    """Measured times: one ascending axis a width, and the seconds in row-major order."""

    axes: tuple[tuple[int, ...], ...]
    seconds: tuple[float, ...]

    def points(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """(widths, seconds) of every point."""
        return zip(itertools.product(*self.axes), self.seconds, strict=True)

    def covers(self, widths: tuple[int, ...]) -> bool:
        """Whether these widths lie within what was measured."""
        return len(widths) == len(self.axes) and all(
            axis[0] <= w <= axis[-1] for w, axis in zip(widths, self.axes, strict=True)
        )

    def at(self, widths: tuple[int, ...], blocked: bool) -> float:
        """Seconds at `widths`: bilinear, each axis along the ladder that its width belongs to.

        Args:
            blocked: whether the axes hold two ladders.
        """
        sides = [_bracket(axis, w, blocked) for w, axis in zip(widths, self.axes, strict=True)]
        total = 0.0
        for corner in itertools.product(*sides):
            index = 0
            for (i, _), axis in zip(corner, self.axes, strict=True):
                index = index * len(axis) + i
            total += math.prod(share for _, share in corner) * self.seconds[index]
        return max(total, 0.0)


def _bracket(axis: tuple[int, ...], width: int, blocked: bool) -> list[tuple[int, float]]:
    """[(position on the axis, share)] of the one or two measured widths that give the time at a width.

    Above the last one of its ladder, at most a block away, the line through the last two goes on.
    """
    whole = width % BLOCK == 0
    ladder = [i for i, w in enumerate(axis) if not blocked or (w % BLOCK == 0) == whole] or list(
        range(len(axis))
    )
    widths = [axis[i] for i in ladder]
    high = min(bisect_left(widths, width), len(widths) - 1)
    if widths[high] == width or len(widths) == 1:
        return [(ladder[high], 1.0)]
    high = max(high, 1)
    share = (width - widths[high - 1]) / (widths[high] - widths[high - 1])
    return [(ladder[high - 1], 1 - share), (ladder[high], share)]


def axis(full: int, blocked: bool) -> tuple[int, ...]:
    """The widths to measure for a layer that is `full` wide."""
    widths = {1, full}
    for share in SHARES:
        width = max(int(share * full), 1)
        if blocked:
            end = -(-width // BLOCK) * BLOCK
            widths |= {end, end - BLOCK // 2 + 1}
        else:
            widths.add(width)
    if blocked:
        widths |= {BLOCK, BLOCK // 2 + 1, max(full // BLOCK, 1) * BLOCK}
    return tuple(sorted(w for w in widths if w <= full))
