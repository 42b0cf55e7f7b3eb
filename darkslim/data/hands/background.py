"""What stands behind the drawn hands: rooms of smooth light and clutter, and things that are skin-coloured
but no hands.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .relief import Relief

# from very light to very dark; a person's tone is drawn between two neighbours
SKIN = np.array(
    [
        (250, 216, 192),
        (240, 198, 168),
        (224, 172, 138),
        (200, 143, 107),
        (167, 112, 80),
        (132, 86, 60),
        (97, 62, 44),
        (68, 45, 35),
    ],
    dtype=float,
)
WOOD = np.array(
    [(196, 154, 108), (160, 110, 66), (120, 78, 46), (214, 182, 140), (140, 100, 72)], dtype=float
)
HAIR = np.array([(28, 22, 20), (62, 42, 30), (110, 78, 46), (196, 164, 110), (130, 128, 126)], dtype=float)
ROOM = 3.2  # how far a distractor reaches from its middle, in its sizes


def skin_tone(rng: np.random.Generator) -> np.ndarray:
    """(3,) RGB of one person's skin."""
    place = rng.uniform(0, len(SKIN) - 1)
    i = min(int(place), len(SKIN) - 2)
    return (SKIN[i] + (SKIN[i + 1] - SKIN[i]) * (place - i)) * rng.normal(1, (0.03, 0.03, 0.04))


def any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour for clothes and clutter: as often grey or muted as bright."""
    grey = rng.uniform(15, 235)
    return tuple(int(v) for v in np.clip(grey + rng.normal(0, rng.choice([6, 20, 50]), 3), 0, 255))


def background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8: smooth light, perhaps a pattern, clutter; mostly drawn smaller and enlarged, so that
    it is out of focus.
    """
    full, shrink = (width, height), int(rng.choice([1, 2, 3, 4], p=[0.25, 0.4, 0.2, 0.15]))
    width, height = width // shrink, height // shrink
    base = np.array(any_colour(rng), float)
    rows, columns = (int(n) for n in rng.integers(2, 7, 2))
    light, tint = rng.uniform(-1, 1, (rows, columns, 1)), rng.uniform(-1, 1, (rows, columns, 3))
    field = base + light * rng.uniform(10, 55) + tint * rng.uniform(3, 22)
    coarse = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.35:
        _pattern(rng, draw, width, height, base, shrink)
    for _ in range(int(rng.integers(3, 22))):
        _clutter(rng, draw, width, height)
    if shrink > 1:
        picture = picture.filter(ImageFilter.BoxBlur(0.6)).resize(full, Image.Resampling.BICUBIC)
    return np.array(picture)


def _pattern(rng, draw: ImageDraw.ImageDraw, width: int, height: int, base: np.ndarray, shrink: int) -> None:
    """Planks, tiles or lines of a page over the whole picture."""
    colour = tuple(int(v) for v in np.clip(base + rng.normal(0, 25, 3), 0, 255))
    step, wide = int(rng.integers(9, 46)) // shrink + 1, max(1, int(rng.integers(1, 6)) // shrink)
    slope = int(rng.normal(0, 20))
    kind = rng.integers(3)
    if kind != 1:
        for y in range(-40, height + 40, step):
            draw.line([(0, y), (width, y + slope)], fill=colour, width=wide)
    if kind != 0:
        for x in range(-40, width + 40, step):
            draw.line([(x, 0), (x + slope, height)], fill=colour, width=wide)


def _clutter(rng: np.random.Generator, draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    w, h = rng.uniform(0.03, 0.35, 2) * min(width, height)
    colour, kind = any_colour(rng), rng.integers(6)
    if kind == 0:
        draw.rectangle(
            [x, y, x + w, y + h], fill=colour, outline=any_colour(rng) if rng.random() < 0.4 else None
        )
    elif kind == 1:
        draw.ellipse(
            [x, y, x + w, y + h], fill=colour, outline=any_colour(rng) if rng.random() < 0.4 else None
        )
    elif kind == 2:
        corners = rng.normal(0, 0.6, (int(rng.integers(3, 7)), 2)) * [w, h] + [x, y]
        draw.polygon([tuple(p) for p in corners], fill=colour)
    elif kind == 3:
        end = (x + rng.normal(0, 1.5) * w, y + rng.normal(0, 1.5) * h)
        draw.line([(x, y), end], fill=colour, width=1 + int(rng.random() * 0.03 * height))
    elif kind == 4:  # a row of books or slats
        for k in range(int(rng.integers(3, 8))):
            draw.rectangle(
                [x + k * w / 4, y, x + (k + 0.85) * w / 4, y + h], fill=any_colour(rng) if k % 2 else colour
            )
    else:
        draw.arc(
            [x, y, x + w, y + h],
            rng.uniform(0, 180),
            rng.uniform(180, 400),
            fill=colour,
            width=1 + int(rng.random() * 0.02 * height),
        )


def distractor(
    rng: np.random.Generator, width: int, height: int, tone: np.ndarray
) -> tuple[Relief, np.ndarray]:
    """Something rounded that is no hand, and its palette: a face, sticks, a bare limb or blob, a coloured
    thing.
    """
    kind = rng.choice(["face", "sticks", "blob", "thing"], p=[0.33, 0.25, 0.22, 0.20])
    size = min(width, height) * rng.uniform(0.10, 0.26)
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    relief = Relief.around(np.array([[(x, y, 0.0)] * 2]), np.array([[size * ROOM] * 2]), (width, height))
    palette = {"face": _face, "sticks": _sticks, "blob": _blob, "thing": _thing}[kind](
        rng, relief, x, y, size, tone
    )
    return relief.trimmed(), palette


def _face(
    rng: np.random.Generator, relief: Relief, x: float, y: float, size: float, tone: np.ndarray
) -> np.ndarray:
    """Head, hair, ears, neck; eyes, brows and a mouth."""
    lean = rng.normal(0, 0.25)
    c, s = np.cos(lean), np.sin(lean)

    def at(u, v, z):  # u across the face, v down, in heads
        return np.array([x + size * (u * c - v * s), y + size * (u * s + v * c), size * z])

    wide = rng.uniform(0.68, 0.82)
    relief.capsule(at(0, 0.7, -0.6), at(0, 1.6, -0.6), 0.38 * size, 0.42 * size, 1)
    relief.ellipsoid(
        at(0, -0.18, -0.35), (wide + 0.10) * size, rng.uniform(0.95, 1.25) * size, 0.75 * size, lean, 2
    )
    for side in (-1, 1):
        relief.ellipsoid(at(side * wide, 0.05, -0.2), 0.12 * size, 0.22 * size, 0.2 * size, lean, 1)
    relief.ellipsoid(at(0, 0.1, -0.1), wide * size, size * 0.95, 0.75 * size, lean, 1)
    if rng.random() < 0.85:  # the other faces are seen from behind, or too far away
        turn = rng.normal(0, 0.12)
        for eye in (turn - 0.28, turn + 0.28):
            relief.capsule(
                at(eye - 0.09, -0.02, 0.62), at(eye + 0.09, -0.02, 0.62), 0.06 * size, 0.06 * size, 3
            )
            relief.capsule(
                at(eye - 0.14, -0.20, 0.60), at(eye + 0.14, -0.20, 0.60), 0.04 * size, 0.04 * size, 2
            )
        relief.capsule(at(turn, 0.0, 0.60), at(turn * 1.3, 0.28, 0.70), 0.07 * size, 0.11 * size, 1)
        relief.capsule(at(turn - 0.2, 0.52, 0.55), at(turn + 0.2, 0.52, 0.55), 0.06 * size, 0.06 * size, 4)
    hair = HAIR[rng.integers(len(HAIR))]
    return np.array([tone, tone, hair, (60, 50, 46), tone * [0.85, 0.58, 0.58]])


def _sticks(
    rng: np.random.Generator, relief: Relief, x: float, y: float, size: float, tone: np.ndarray
) -> np.ndarray:
    """Wooden sticks, crossed or scattered: as long and as thin as fingers, but with no palm."""
    for _ in range(int(rng.integers(1, 5))):
        angle, thin = rng.uniform(0, np.pi), size * rng.uniform(0.07, 0.20)
        step = np.array([np.cos(angle), np.sin(angle), 0.0]) * size * rng.uniform(0.8, 1.7)
        middle = np.array([x, y, 0.0]) + np.append(rng.normal(0, 0.35, 2) * size, rng.uniform(0, 1) * size)
        relief.capsule(middle - step, middle + step, thin, thin * rng.uniform(0.8, 1.0), 1)
    wood = WOOD[rng.integers(len(WOOD))]
    return np.array([wood, wood])


def _blob(
    rng: np.random.Generator, relief: Relief, x: float, y: float, size: float, tone: np.ndarray
) -> np.ndarray:
    """A bare knee, elbow or shoulder: a few thick rounded pieces of skin without fingers."""
    p = np.array([x, y, 0.0])
    ends, radii = [], []
    for _ in range(int(rng.integers(1, 4))):
        q = p + np.append(rng.uniform(-0.8, 0.8, 2) * size, 0.0)
        ends.append((p, q))
        radii.append(rng.uniform(0.38, 0.62, 2) * size)
        p = q
    relief.blend(np.array(ends), np.array(radii), size * 0.08, 1)
    return np.array([tone, tone])


def _thing(
    rng: np.random.Generator, relief: Relief, x: float, y: float, size: float, tone: np.ndarray
) -> np.ndarray:
    """A ball, a bottle or a box of any colour."""
    if rng.random() < 0.4:
        a, b = size * rng.uniform(0.3, 0.8, 2)
        relief.ellipsoid((x, y, 0.0), a, b, size * 0.6, rng.uniform(0, np.pi), 1)
    else:
        angle = rng.uniform(0, np.pi)
        step = np.array([np.cos(angle), np.sin(angle), 0.0]) * size
        p = np.array([x, y, 0.0])
        relief.capsule(p - step * 0.7, p + step * 0.4, size * 0.36, size * 0.36, 1)
        relief.capsule(p + step * 0.4, p + step * 1.1, size * 0.15, size * 0.15, 2)
    return np.array([(0, 0, 0), any_colour(rng), any_colour(rng)], dtype=float)
