"""Detections drawn into a picture, in colours that colour-blind people tell apart (Okabe and Ito 2008)."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
LEAST, SHARE = 2, 300  # pixels of a line at least; the picture's shorter side over its width
QUALITY = 92


def draw(picture: Image.Image, found: Sequence[dict]) -> Image.Image:
    """A copy with a box, the class and the score of each detection; the surest on top.

    Args:
        found: class, name, score, x1, y1, x2, y2 in pixels.
    """
    picture = picture.convert("RGB")
    brush = ImageDraw.Draw(picture)
    width = max(LEAST, min(picture.size) // SHARE)
    font = ImageFont.load_default(max(10, 6 * width))
    for one in sorted(found, key=lambda row: row["score"]):
        colour = COLOURS[one["class"] % len(COLOURS)]
        box = [one[key] for key in ("x1", "y1", "x2", "y2")]
        brush.rectangle(box, outline=colour, width=width)
        text = f"{one['name']} {one['score']:.2f}"
        left, top, right, bottom = brush.textbbox((0, 0), text, font=font)
        wide, high = right - left + 2 * width, bottom - top + 2 * width
        x = min(max(0.0, box[0]), max(0.0, picture.width - wide))
        y = box[1] - high if box[1] >= high else min(box[1], picture.height - high)
        brush.rectangle((x, y, x + wide, y + high), fill=colour)
        dark = sum(w * c for w, c in zip((0.299, 0.587, 0.114), colour, strict=True)) < 128
        brush.text((x + width - left, y + width - top), text, fill="white" if dark else "black", font=font)
    return picture


def encoded(picture: Image.Image, suffix: str) -> bytes:
    """The bytes of a picture: JPEG for the suffixes that say so, else PNG."""
    stream = io.BytesIO()
    jpeg = suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")
    picture.save(stream, "JPEG" if jpeg else "PNG", **({"quality": QUALITY} if jpeg else {}))
    return stream.getvalue()
