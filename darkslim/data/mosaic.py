"""Mosaic: four pictures in one, as AlexeyAB's Darknet lays them out (`mosaic=1` in `[net]`).

Each of the four is augmented and fitted to the network input as it would be alone; of each a window as large
as its quadrant is shown. So objects keep their size, and many are cut by a border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAREST = 0.2  # to the border of the input that the cross may come, as a share of the side
DARKNETS = 0.5  # how often Darknet makes one, where the cfg has mosaic=1


@dataclass(frozen=True)
class Tile:
    """A quadrant, and what of its picture is shown there; all in pixels of the network input.

    Attributes:
        left, top, right, bottom: the quadrant. x, y: the corner of the window, of the same size, of the
            picture as it would fill the input alone.
    """

    left: int
    top: int
    right: int
    bottom: int
    x: int = 0
    y: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left


def whole(size: tuple[int, int]) -> Tile:
    """The one tile of a picture that is alone; `size` is (height, width)."""
    return Tile(0, 0, size[1], size[0])


def draw_tiles(rng: np.random.Generator, size: tuple[int, int]) -> list[Tile]:
    """The four quadrants round a random point, each with a random window.

    Args:
        size: (height, width) of the network input.
    """
    height, width = size
    u = rng.random(10)
    across = min(max(round((NEAREST + (1 - 2 * NEAREST) * u[0]) * width), 1), width - 1)
    down = min(max(round((NEAREST + (1 - 2 * NEAREST) * u[1]) * height), 1), height - 1)
    corners = [
        (0, 0, across, down),
        (across, 0, width, down),
        (0, down, across, height),
        (across, down, width, height),
    ]
    tiles = []
    for (left, top, right, bottom), (a, b) in zip(corners, u[2:].reshape(4, 2), strict=True):
        x, y = round(a * (width - right + left)), round(b * (height - bottom + top))
        tiles.append(Tile(left, top, right, bottom, x, y))
    return tiles


def move_boxes(rows: np.ndarray, tile: Tile, size: tuple[int, int]) -> np.ndarray:
    """Boxes of a picture that fills the input -> boxes of what its tile shows, not clipped.

    Args:
        rows: (n, 5) class, x, y, w, h relative to the network input.
    """
    moved = rows.copy()
    moved[:, 1] += (tile.left - tile.x) / size[1]
    moved[:, 2] += (tile.top - tile.y) / size[0]
    return moved
