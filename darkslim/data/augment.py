"""Darknet's augmentation: scale and translation jitter, flip, HSV distortion (`load_data_detection` in its
data.c).

Everything but the distortion is one rectangle of the picture, so that crop, padding, scale and translation
cost one resize.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from .images import Rect


@dataclass(frozen=True)
class AugmentParams:
    """One drawing of the random numbers: what is done to one picture."""

    sides: tuple[float, float, float, float] = (
        0.0,
        0.0,
        0.0,
        0.0,
    )  # left, top, right, bottom crop, as fractions
    flip: bool = False
    vflip: bool = False
    hue: float = 0.0
    saturation: float = 1.0
    exposure: float = 1.0


@dataclass(frozen=True)
class Augment:
    """How strongly pictures are changed; the names and meanings are Darknet's.

    Attributes:
        hue: shift of up to +-hue of the whole circle.
        saturation, exposure: times or divided by up to this; 1 is off.
        jitter: each side is cropped by up to this fraction of the picture, or padded by it.
        flip: non-zero mirrors every second picture.
        vflip: probability of turning a picture upside down.
        mosaic: probability of showing parts of four pictures. mosaic_until: the epoch, from 0, from which on
            there are none; None: never.
        min_visible: a box that keeps less than this part of its area is dropped.
    """

    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5
    jitter: float = 0.3
    flip: int = 1
    vflip: float = 0.0
    min_visible: float = 0.15
    mosaic: float = 0.0
    mosaic_until: int | None = None

    @classmethod
    def from_options(cls, net: Mapping, head: Mapping, **changes) -> Augment:
        """From the typed values of `[net]` and of a `[yolo]` or `[region]` section; Darknet's defaults for
        what is absent.
        """
        options = {
            "hue": net.get("hue", 0.0),
            "saturation": net.get("saturation", 1.0),
            "exposure": net.get("exposure", 1.0),
            "flip": net.get("flip", 1),
            "jitter": head.get("jitter", 0.2),
        }
        return cls(**{**options, **changes})

    def draw(self, rng: np.random.Generator) -> AugmentParams:
        """Draws once. The numbers drawn do not depend on the settings, so that one setting does not move
        another's luck.
        """
        u = rng.random(10)
        jitter = min(self.jitter, 0.49)  # two sides of 1/2 would leave nothing
        sides = tuple(float(v) for v in (2 * u[:4] - 1) * jitter)
        return AugmentParams(
            sides,
            bool(self.flip) and u[4] < 0.5,
            bool(u[5] < self.vflip),
            float((2 * u[6] - 1) * self.hue),
            _factor(self.saturation, u[7]),
            _factor(self.exposure, u[8]),
        )

    def has_mosaics(self, epoch: int) -> bool:
        """Whether there are any in this epoch."""
        return self.mosaic > 0 and (self.mosaic_until is None or epoch < self.mosaic_until)

    def clip_boxes(self, rows: np.ndarray, left=0.0, top=0.0, right=1.0, bottom=1.0) -> np.ndarray:
        """Boxes clipped to the network input, or to a part of it; those of which too little is left are
        dropped.

        Args:
            rows: (n, 5) class, x, y, w, h relative to the network input, not clipped.
        """
        low = (rows[:, 1:3] - rows[:, 3:5] / 2).clip((left, top), (right, bottom))
        high = (rows[:, 1:3] + rows[:, 3:5] / 2).clip((left, top), (right, bottom))
        size = high - low
        keep = (size > 0).all(1) & (size.prod(1) >= self.min_visible * rows[:, 3:5].prod(1))
        return np.concatenate([rows[keep, :1], ((low + high) / 2)[keep], size[keep]], 1)


def _factor(limit: float, u: float) -> float:
    """Darknet's rand_scale: U(1, limit), or its inverse, with equal chances."""
    limit = max(limit, 1 / limit) if limit > 0 else 1.0
    scale = 1 + (2 * u if u < 0.5 else 2 * u - 1) * (limit - 1)
    return float(scale if u < 0.5 else 1 / scale)


def jittered(rect: Rect, image_size: tuple[int, int], sides: tuple[float, float, float, float]) -> Rect:
    """The rectangle with each side moved by a fraction of the picture's size; positive crops, negative
    pads.
    """
    (w, h), (left, top, right, bottom) = image_size, rect
    return left + sides[0] * w, top + sides[1] * h, right - sides[2] * w, bottom - sides[3] * h


def flip_boxes(rows: np.ndarray, params: AugmentParams) -> np.ndarray:
    """Boxes of the mirrored picture, (n, 5) class, x, y, w, h."""
    rows = rows.copy()
    if params.flip:
        rows[:, 1] = 1 - rows[:, 1]
    if params.vflip:
        rows[:, 2] = 1 - rows[:, 2]
    return rows


def flip_image(image: Image.Image, params: AugmentParams) -> Image.Image:
    if params.flip and params.vflip:
        return image.transpose(Image.Transpose.ROTATE_180)
    if params.flip:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if params.vflip else image


def distort(image: Image.Image, params: AugmentParams) -> Image.Image:
    """Hue, saturation and exposure changed; a grey picture only has exposure.

    Going through HSV pixel by pixel costs more than decoding the JPEG, and is not needed. With V = max(r, g,
    b) and C any of the three, scaling S by s and V by e gives C' = e ((1 - s) V + s C): a blend and a table,
    equal to Darknet's arithmetic up to rounding. The hue is turned about the grey axis by a matrix: a circle
    where HSV has a hexagon, the same for the eye.
    """
    if image.mode == "RGB" and params.hue != 0:
        image = image.convert("RGB", _turn(params.hue))
    if image.mode == "RGB" and params.saturation != 1:
        red, green, blue = image.split()
        value = ImageChops.lighter(ImageChops.lighter(red, green), blue)
        image = Image.blend(Image.merge("RGB", (value, value, value)), image, params.saturation)
    if params.exposure != 1:
        table = np.minimum(np.arange(256) * params.exposure + 0.5, 255).astype(np.uint8).tolist()
        image = image.point(table * len(image.getbands()))
    return image


def _turn(hue: float) -> tuple[float, ...]:
    """The rotation about (1, 1, 1) by `hue` of a circle, red towards green (Rodrigues), as Pillow's 3 x 4
    matrix.
    """
    angle = 2 * np.pi * hue
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    matrix = np.cos(angle) * np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) / 3
    return tuple(float(v) for v in np.concatenate([matrix, np.zeros((3, 1))], 1).ravel())
