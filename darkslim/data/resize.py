"""Bilinear resizing as other programs do it: without antialiasing, so that a shrunk picture skips pixels.

- `opencv`: half-pixel centres, as cv2.resize with INTER_LINEAR (Darknet built with OpenCV, and most
  programs that deploy a network).
- `darknet`: the corners of the picture are those of the result, as `resize_image` of Darknet's image.c.

Pixels are rounded to whole numbers, which Darknet does not do: at most half a step of 255.
"""

from __future__ import annotations

import numpy as np

RESIZES = ("antialias", "opencv", "darknet")


def bilinear(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int], how: str
) -> np.ndarray:
    """The part `box` of a picture, resized.

    Args:
        pixels: (H, W, C) uint8.
        box: left, top, right, bottom in pixels, inside of the picture.
        size: (height, width) of the result.
        how: `opencv` or `darknet`.

    Returns:
        (height, width, C) uint8.
    """
    left, top, right, bottom = box
    low_y, high_y, part_y = _samples(top, bottom, pixels.shape[0], size[0], how)
    low_x, high_x, part_x = _samples(left, right, pixels.shape[1], size[1], how)
    rows = _mix(pixels[low_y], pixels[high_y], part_y[:, None, None])
    mixed = _mix(rows[:, low_x], rows[:, high_x], part_x[None, :, None])
    return np.rint(mixed).astype(np.uint8)


def _samples(start: float, end: float, length: int, count: int, how: str):
    """Two neighbours for each place of a line, and the share of the second."""
    places = np.arange(count, dtype=np.float64)
    if how == "darknet":
        at = start + places * ((end - start - 1) / (count - 1) if count > 1 else 0)
    else:
        at = start + (places + 0.5) * ((end - start) / count) - 0.5
    at = at.clip(0, length - 1)
    low = np.floor(at).astype(np.intp)
    return low, np.minimum(low + 1, length - 1), (at - low).astype(np.float32)


def _mix(a: np.ndarray, b: np.ndarray, part: np.ndarray) -> np.ndarray:
    return a * (1 - part) + b * part
