"""A sheet of pictures with what was found in them, for people who would rather look."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

COLOURS = (
    (255, 64, 64),
    (64, 160, 255),
    (255, 200, 0),
    (200, 80, 255),
    (0, 220, 200),
    (255, 128, 0),
    (255, 120, 200),
    (160, 220, 0),
)
TRUTH = (0, 230, 0)


def sheet(
    items: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    names: list[str],
    columns: int = 4,
    side: int = 320,
) -> bytes:
    """PNG bytes: the pictures in a grid, truths as thin green boxes, detections in the colour of their class
    with the score.

    Args:
        items: (uint8 (H, W, C) picture, (n, 4) truths, (m, 6) detections: left, top, right, bottom, score,
            class), in the picture's pixels.
        names: of the classes.
        columns: pictures a row.
        side: width of one picture on the sheet, pixels.
    """
    tiles = [_tile(image, truths, found, names, side) for image, truths, found in items]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height = max(tile.height for tile in tiles)
    page = Image.new("RGB", (columns * side, rows * height), "white")
    for i, tile in enumerate(tiles):
        page.paste(tile, (i % columns * side, i // columns * height))
    stream = io.BytesIO()
    page.save(stream, "PNG")
    return stream.getvalue()


def _tile(
    image: np.ndarray, truths: np.ndarray, found: np.ndarray, names: list[str], side: int
) -> Image.Image:
    scale = side / image.shape[1]
    picture = Image.fromarray(image.squeeze()).convert("RGB").resize((side, round(image.shape[0] * scale)))
    draw = ImageDraw.Draw(picture)
    for box in truths:
        draw.rectangle([float(v) * scale for v in _ordered(box)], outline=TRUTH)
    for row in found[::-1]:  # the surest last, on top
        label = int(row[5])
        colour = COLOURS[label % len(COLOURS)]
        left, top, right, bottom = (float(v) * scale for v in _ordered(row[:4]))
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        text = f"{names[label]} {row[4]:.2f}" if len(names) > 1 else f"{row[4]:.2f}"
        place = (min(max(left, 0), side - 30), max(top - 11, 0))
        draw.rectangle(draw.textbbox(place, text), fill=colour)
        draw.text(place, text, fill=(0, 0, 0))
    return picture


def _ordered(box) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(v) for v in box)
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)
