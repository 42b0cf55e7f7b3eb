"""One picture of hands: background, things that are no hands, hands on arms, what stands before them, and the
camera.

`draw` returns the pixels and, for every hand, the quad that an annotator would draw and the mask of what the
hand covers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .background import any_colour, background, distractor, skin_tone
from .model import FINGER, NAIL, PALM, TIP, Hand3D, bounding_box, random_hand
from .relief import Relief, smooth_noise

SKIN, CLOTH = 1, 2  # the parts of an arm
LOOSE = 1.35  # the widest sleeve, in widths of the arm in it
MIN_VISIBLE = 0.6  # of an annotated hand's area; a hand that would be hidden further is not drawn at all
MAX_OVERLAP = 0.03  # intersection over union of two hands' boxes
SIZE_RANGE = 0.30, 0.65  # square root of the box' area over the short side of the picture
NORMAL = np.array(
    [NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)]
)  # a random byte -> a normal deviate


@dataclass(frozen=True)
class Hand:
    """One annotated hand.

    Attributes:
        quad: (4, 2) corners x, y in pixels; pixel centres lie on whole numbers, the first one on 0. The first
            two corners are the wrist's. A corner may lie outside the picture.
        mask: (H, W) bool, where the hand (without its arm) is inside the picture, hidden parts included.
        visible: the share of the whole hand that is inside the picture and not hidden.
        pose: its name.
    """

    quad: np.ndarray
    mask: np.ndarray
    visible: float
    pose: str


@dataclass(frozen=True)
class _Placed:
    """A hand that stands in the picture: its quad, upright box (x1, y1, x2, y2), mask, and whole area in
    pixels.
    """

    quad: np.ndarray
    box: np.ndarray
    mask: np.ndarray
    area: int
    pose: str


@dataclass
class _Canvas:
    """The picture being painted, the hands in it, and which of them (1, 2, ...) owns each pixel, 0 for
    none.
    """

    pixels: np.ndarray
    owner: np.ndarray
    light: np.ndarray
    ambient: float
    placed: list[_Placed] = field(default_factory=list)

    def shares(self, owner: np.ndarray, more: tuple[_Placed, ...] = ()) -> list[float]:
        """How much of each hand would be seen if `owner` were the owners."""
        seen = np.bincount(owner.ravel(), minlength=len(self.placed) + len(more) + 1)
        return [float(seen[k] / hand.area) for k, hand in enumerate([*self.placed, *more], 1)]


def draw(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, list[Hand]]:
    """A picture (H, W, 3) uint8 and its one to four hands. The same generator state gives the same bytes."""
    tone = skin_tone(rng)
    light = np.append(rng.normal(0, 0.55, 2) + [0.0, -0.35], rng.uniform(0.7, 1.3))
    canvas = _Canvas(
        background(rng, width, height),
        np.zeros((height, width), np.uint8),
        light / np.linalg.norm(light),
        float(rng.uniform(0.40, 0.65)),
    )
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.3, 0.4, 0.2, 0.1]))):
        relief, palette = distractor(rng, width, height, tone if rng.random() < 0.6 else skin_tone(rng))
        _paint(canvas, relief, relief.shade(palette, canvas.light, canvas.ambient))
    wanted = int(rng.choice([1, 2, 3, 4], p=[0.7, 0.2, 0.07, 0.03]))
    for _ in range(wanted):
        _place_hand(rng, canvas, wanted, tone if rng.random() < 0.6 else skin_tone(rng))
    if rng.random() < 0.15:
        _place_occluder(rng, canvas)
    shares = canvas.shares(canvas.owner)
    hands = [
        Hand(hand.quad, hand.mask, share, hand.pose)
        for hand, share in zip(canvas.placed, shares, strict=True)
    ]
    return _camera(rng, canvas.pixels), hands


def _place_hand(rng: np.random.Generator, canvas: _Canvas, wanted: int, tone: np.ndarray) -> None:
    """Paints one more hand where it is visible and hides no other one too far; gives up when there is no
    room.
    """
    height, width = canvas.owner.shape
    short, first = min(width, height), not canvas.placed
    hand = random_hand(rng)
    box = bounding_box(hand.quad())
    extent = box[2:] - box[:2]
    unit = np.sqrt(extent.prod())
    side = rng.uniform(SIZE_RANGE[0], SIZE_RANGE[1] if wanted < 3 else 0.42) * short
    for _ in range(12):
        half = side / unit * extent / 2
        slack = -0.30 if rng.random() < 0.08 else 1.0  # some hands are cut by the border
        low = np.minimum(half * slack, (width / 2, height / 2))
        centre = rng.uniform(low, np.array([width, height]) - low)
        if _try_hand(rng, canvas, hand.placed(float(side / unit), centre), tone):
            return
        if not first:
            side = max(side * 0.97, SIZE_RANGE[0] * short)
    if first:  # alone in the middle it always fits
        _try_hand(rng, canvas, hand.placed(float(0.35 * short / unit), (width / 2, height / 2)), tone)


def _try_hand(rng: np.random.Generator, canvas: _Canvas, hand: Hand3D, tone: np.ndarray) -> bool:
    height, width = canvas.owner.shape
    quad = hand.quad()
    box = bounding_box(quad)
    if any(_overlap(box, other.box) > MAX_OVERLAP for other in canvas.placed):
        return False
    body, arm = _hand_relief(hand), _arm_relief(hand, width, height)
    solid = body.cover > 0.5
    owner, mask = canvas.owner.copy(), np.zeros((height, width), bool)
    inside, sleeve = body.window_in(width, height), arm.window_in(width, height)
    if inside is None:
        return False
    if sleeve:
        owner[sleeve[0]][arm.cover[sleeve[1]] > 0.5] = 0
    mask[inside[0]] = solid[inside[1]]
    owner[mask] = len(canvas.placed) + 1
    placed = _Placed(quad, box, mask, int(solid.sum()), hand.pose)
    if min(canvas.shares(owner, (placed,))) < MIN_VISIBLE:
        return False
    canvas.owner = owner
    canvas.placed.append(placed)
    if rng.random() < 0.45:
        _shadow(rng, canvas, body)
    _paint_arm(rng, canvas, arm, hand, tone)
    _paint(canvas, body, _hand_colours(rng, canvas, body, hand, tone))
    return True


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def _hand_relief(hand: Hand3D) -> Relief:
    relief = Relief.around(hand.ends, hand.radii)
    palm = hand.parts == PALM
    relief.blend(hand.ends[palm], hand.radii[palm], float(hand.radii[palm].mean()) * 0.22, PALM)
    for (start, end), (r0, r1), part in zip(
        hand.ends[~palm], hand.radii[~palm], hand.parts[~palm], strict=True
    ):
        relief.capsule(start, end, r0, r1, part)
    return relief


def _arm_relief(hand: Hand3D, width: int, height: int) -> Relief:
    relief = Relief.around(
        hand.arm[None], np.broadcast_to(hand.arm_radii.max() * LOOSE, (1, 2)), (width, height)
    )
    relief.capsule(hand.arm[0], hand.arm[1], *hand.arm_radii, SKIN)
    return relief


def _paint_arm(
    rng: np.random.Generator, canvas: _Canvas, arm: Relief, hand: Hand3D, tone: np.ndarray
) -> None:
    """The forearm, in most pictures in a sleeve that begins somewhere behind the wrist."""
    if not arm.height.size:
        return
    if rng.random() < 0.8:
        share = rng.uniform(0.11, 0.40)
        start = hand.arm[0] + (hand.arm[1] - hand.arm[0]) * share
        radii = np.array(
            [hand.arm_radii[0] + (hand.arm_radii[1] - hand.arm_radii[0]) * share, hand.arm_radii[1]]
        )
        arm.capsule(start, hand.arm[1], *(radii * rng.uniform(1.15, LOOSE)), CLOTH)
    colours = arm.shade(np.array([tone, tone, any_colour(rng)], dtype=float), canvas.light, canvas.ambient)
    rows, columns = arm.height.shape
    colours = (
        colours
        * (1 + 0.07 * smooth_noise(rng, columns, rows, max(2, columns // 12), max(2, rows // 12)))[..., None]
    )
    _paint(canvas, arm, colours)


def _hand_colours(
    rng: np.random.Generator, canvas: _Canvas, body: Relief, hand: Hand3D, tone: np.ndarray
) -> np.ndarray:
    """The lit skin of a hand: palms are lighter and redder than backs, fingertips redder, nails brighter;
    folds are dark.
    """
    palm = tone + (np.array([226, 170, 146]) - tone) * 0.35
    skin = palm + (tone - palm) * np.clip(0.5 - 0.8 * hand.facing, 0, 1)
    palette = np.zeros((5, 3))
    palette[[PALM, FINGER]] = skin, skin * [1.01, 0.985, 0.98]
    palette[TIP], palette[NAIL] = skin * [1.02, 0.955, 0.95], skin * 0.75 + np.array([238, 205, 196]) * 0.27
    if rng.random() < 0.08:
        palette[NAIL] = any_colour(rng)  # varnish
    colours = body.shade(palette, canvas.light, canvas.ambient, gloss=float(rng.uniform(0, 0.07)))
    rows, columns = body.height.shape
    texture = smooth_noise(rng, columns, rows, max(2, columns // 9), max(2, rows // 9))
    return colours * (1 + 0.06 * texture - 0.30 * _creases(body, hand))[..., None]


def _creases(body: Relief, hand: Hand3D) -> np.ndarray:
    """(H, W) float32 0..1: where folds darken the skin; those behind another finger are left out."""
    rows, columns = body.height.shape
    drawing = Image.new("L", (columns, rows))
    pen = ImageDraw.Draw(drawing)
    unit = float(hand.radii[0, 1])
    middles = (hand.creases[:, 0] + hand.creases[:, 1]) / 2
    for (p, q), middle in zip(hand.creases, middles, strict=True):
        x, y = int(round(middle[0])) - body.x0, int(round(middle[1])) - body.y0
        if 0 <= x < columns and 0 <= y < rows and middle[2] > body.height[y, x] - 0.6 * unit:
            ends = [(p[0] - body.x0, p[1] - body.y0), (q[0] - body.x0, q[1] - body.y0)]
            pen.line(ends, fill=255, width=max(1, round(unit / 7)))
    return np.asarray(drawing.filter(ImageFilter.BoxBlur(0.7)), np.float32) / 255


def _paint(canvas: _Canvas, relief: Relief, colours: np.ndarray) -> None:
    """Lays lit colours over the picture."""
    height, width = canvas.owner.shape
    inside = relief.window_in(width, height)
    if inside is None:
        return
    there, here = inside
    below = canvas.pixels[there].astype(np.float32)
    mixed = below + (colours[here] - below) * relief.cover[here][..., None]
    canvas.pixels[there] = np.clip(mixed, 0, 255).astype(np.uint8)


def _shadow(rng: np.random.Generator, canvas: _Canvas, relief: Relief) -> None:
    """Darkens what lies behind a hand, away from the light."""
    height, width = canvas.owner.shape
    reach = rng.uniform(0.04, 0.14) * max(relief.height.shape)
    soft = Image.fromarray((relief.cover * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(reach / 2))
    moved = Relief(
        relief.x0 - int(canvas.light[0] * reach * 2), relief.y0 - int(canvas.light[1] * reach * 2), 0, 0
    )
    moved.height = np.asarray(soft, np.float32) / 255
    inside = moved.window_in(width, height)
    if inside:
        there, here = inside
        canvas.pixels[there] = (canvas.pixels[there] * (1 - 0.45 * moved.height[here])[..., None]).astype(
            np.uint8
        )


def _place_occluder(rng: np.random.Generator, canvas: _Canvas) -> None:
    """A rod before one of the hands; left out where it would hide too much."""
    height, width = canvas.owner.shape
    box = canvas.placed[rng.integers(len(canvas.placed))].box
    size = float(np.sqrt((box[2:] - box[:2]).prod()))
    middle = np.append(rng.uniform(box[:2], box[2:]), 0.0)
    angle = rng.uniform(0, np.pi)
    step = np.array([np.cos(angle), np.sin(angle), 0.0]) * size * rng.uniform(0.4, 1.2)
    radius = size * rng.uniform(0.03, 0.11)
    relief = Relief.around(
        np.array([[middle - step, middle + step]]), np.array([[radius, radius]]), (width, height)
    )
    relief.capsule(middle - step, middle + step, radius, radius, 1)
    inside = relief.window_in(width, height)
    if inside is None:
        return
    owner = canvas.owner.copy()
    owner[inside[0]][relief.cover[inside[1]] > 0.5] = 0
    if min(canvas.shares(owner)) >= MIN_VISIBLE:
        canvas.owner = owner
        colour = any_colour(rng)
        _paint(
            canvas,
            relief,
            relief.shade(np.array([colour, colour], dtype=float), canvas.light, canvas.ambient),
        )


def _camera(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Focus, motion, exposure, white balance and sensor noise."""
    height, width = pixels.shape[:2]
    focus = float(rng.choice([0.35, 0.7, 1.2], p=[0.5, 0.35, 0.15]))
    motion = rng.uniform(0.5, 2.0) if rng.random() < 0.15 else 0.0
    picture = Image.fromarray(pixels).filter(ImageFilter.BoxBlur((focus + motion, focus)))
    gain = rng.normal(1.0, 0.12) * rng.normal(1.0, 0.035, 3)
    curve = np.clip(np.arange(256) * gain[:, None], 0, 255).astype(np.uint8)  # a table for each channel
    levels = np.rint(NORMAL * rng.uniform(1.0, 6.0)).astype(np.int16)
    noise = levels[np.frombuffer(rng.bytes(width * height), np.uint8)].reshape(height, width, 1)
    shot = np.asarray(picture.point(curve.ravel().tolist()), np.int16) + noise
    return np.clip(shot, 0, 255).astype(np.uint8)
