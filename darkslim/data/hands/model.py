"""A hand as a skeleton of tapered capsules: where its bones lie for a random pose, and the quad around it.

Lengths are in palm widths. A hand in rest stands on its wrist at the origin with the fingers along +y,
the palm towards +z (the viewer) and the thumb at +x. Bending a finger turns it towards +z, so that one
orthographic projection after a rotation gives open hands, fists, fingertips towards the viewer and side views
with the right foreshortening. Image axes are x right, y down; `view` turns +y up into -y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PALM, FINGER, TIP, NAIL = 1, 2, 3, 4
# index, middle, ring, little: knuckle (x, y, z), length, radius at the knuckle, sideways rest angle (radians)
KNUCKLES = np.array([(0.34, 1.08, 0.00), (0.115, 1.15, -0.03), (-0.115, 1.10, -0.02), (-0.33, 0.98, 0.02)])
LENGTHS = np.array([0.88, 0.97, 0.90, 0.70])
RADII = np.array([0.118, 0.122, 0.115, 0.098])
SPREADS = np.array([0.13, 0.02, -0.09, -0.22])
PALM_LINES = np.array(
    [
        ((0.40, 0.78, 0.15), (-0.25, 0.88, 0.15)),
        ((0.40, 0.70, 0.15), (-0.30, 0.55, 0.15)),
        ((0.32, 0.66, 0.15), (0.06, 0.15, 0.15)),
    ]
)
PHALANGES = np.array([0.46, 0.30, 0.24])
FLEXION = np.radians([82.0, 100.0, 62.0])  # of a fully closed finger, joint by joint
POSES = ("open", "fist", "point", "two", "thumb", "partly", "free")
POSE_ODDS = (0.30, 0.17, 0.12, 0.08, 0.08, 0.15, 0.10)


@dataclass(frozen=True)
class Hand3D:
    """The capsules of a hand, seen from +z, y down, in the unit of the radii.

    Attributes:
        ends: (K, 2, 3) start and end of each capsule.
        radii: (K, 2) radius at the start and at the end.
        parts: (K,) PALM, FINGER, TIP or NAIL.
        creases: (L, 2, 3) short folds on the skin at the joints and, where the palm is seen, across the palm.
        arm: (2, 3) wrist and the end of the forearm; it belongs to no quad.
        arm_radii: (2,) of the forearm.
        facing: cosine between the palm's normal and the line of sight: 1 palm, -1 back, 0 from the side.
        pose: its name.
    """

    ends: np.ndarray
    radii: np.ndarray
    parts: np.ndarray
    creases: np.ndarray
    arm: np.ndarray
    arm_radii: np.ndarray
    facing: float
    pose: str

    def placed(self, scale: float, centre) -> Hand3D:
        """The same hand, enlarged by `scale` and shifted so that its quad's bounding box is centred on
        `centre` (x, y).
        """
        box = bounding_box(self.quad())
        shift = np.array(
            [centre[0] - scale * (box[0] + box[2]) / 2, centre[1] - scale * (box[1] + box[3]) / 2, 0.0]
        )
        return Hand3D(
            self.ends * scale + shift,
            self.radii * scale,
            self.parts,
            self.creases * scale + shift,
            self.arm * scale + shift,
            self.arm_radii * scale,
            self.facing,
            self.pose,
        )

    def quad(self, margin: float = 0.03) -> np.ndarray:
        """The rotated rectangle around the hand without its arm: (4, 2) corners x, y.

        The first two corners are the wrist's, the other two the fingertips', in order around the rectangle.
        The axis runs from the wrist to the middle of the knuckles, as an annotator sees it. `margin` is in
        palm widths.
        """
        wrist, knuckles = self.arm[0, :2], self.ends[:4, 1, :2].mean(axis=0)
        along = knuckles - wrist
        along = along / max(np.hypot(*along), 1e-9)
        frame = np.stack([along, [-along[1], along[0]]])
        points = self.ends[..., :2] @ frame.T  # (K, 2, 2): along, across
        pad = margin * self.radii[0, 1] / PALM_RADIUS
        low = (points - self.radii[..., None]).min(axis=(0, 1)) - pad
        high = (points + self.radii[..., None]).max(axis=(0, 1)) + pad
        corners = np.array([(low[0], low[1]), (low[0], high[1]), (high[0], high[1]), (high[0], low[1])])
        return corners @ frame


PALM_RADIUS = 0.15  # of a metacarpal at its knuckle, before a hand's own thickness


def bounding_box(quad: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 of a (4, 2) quad."""
    return np.concatenate([quad.min(axis=0), quad.max(axis=0)])


def random_hand(rng: np.random.Generator) -> Hand3D:
    """A hand of random build, pose, side and view, in palm widths."""
    pose = str(rng.choice(POSES, p=np.array(POSE_ODDS)))
    thick = rng.uniform(0.92, 1.18)
    ends, radii, parts, creases = _bones(rng, pose, thick)
    bend = rng.normal(0.0, 0.22)
    reach = rng.uniform(4.0, 7.0)
    arm = np.array(
        [(0.0, 0.02, 0.0), (reach * np.sin(bend), -reach * np.cos(bend), rng.normal(0, 0.15) * reach)]
    )
    turn = _view(rng, pose)
    mirror = np.array([rng.choice([-1.0, 1.0]), 1.0, 1.0])
    flip = np.array([1.0, -1.0, 1.0])  # y up -> y down

    def project(points):
        return (points * mirror) @ turn.T * flip

    facing = float(turn[2, 2])
    wrist = 0.20 + 0.09 * abs(facing)  # a wrist is broader than thick
    arm_radii = np.array([wrist, wrist + 0.035 * reach]) * thick
    return Hand3D(project(ends), radii, parts, project(creases), project(arm), arm_radii, facing, pose)


def _view(rng: np.random.Generator, pose: str) -> np.ndarray:
    """A (3, 3) rotation: roll about the forearm (palm, back or side), pitch, then a turn in the picture."""
    roll = rng.choice([0.0, np.pi, np.pi / 2, -np.pi / 2], p=[0.40, 0.36, 0.12, 0.12]) + rng.normal(0, 0.30)
    pitch = np.clip(rng.normal(0, 0.28), -0.6, 0.6)
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else rng.normal(0, 0.9)
    return _turn(2, angle) @ _turn(0, pitch) @ _turn(1, roll)


def _turn(axis: int, angle: float) -> np.ndarray:
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    m = np.eye(3)
    m[i, i] = m[j, j] = np.cos(angle)
    m[i, j], m[j, i] = -np.sin(angle), np.sin(angle)
    return m


def _curls(rng: np.random.Generator, pose: str) -> np.ndarray:
    """How far thumb, index, middle, ring and little finger are closed, each 0 (straight) to 1 (in the
    palm).
    """
    straight, closed = rng.uniform(0.0, 0.16, 5), rng.uniform(0.86, 1.0, 5)
    if pose == "open":
        return straight
    if pose == "fist":
        return closed
    if pose == "partly":
        return np.clip(
            rng.uniform(0.25, 0.7) + np.array([-0.1, -0.08, 0, 0.06, 0.1]) + rng.normal(0, 0.06, 5), 0, 1
        )
    if pose == "free":
        return rng.uniform(0, 1, 5)
    fingers = {"point": [1], "two": [1, 2], "thumb": [0]}[pose]
    if pose == "point" and rng.random() < 0.4:
        fingers = [0, 1]
    closed[fingers] = straight[fingers]
    return closed


def _bones(rng: np.random.Generator, pose: str, thick: float):
    """The capsules and creases of one hand at rest: ends (K, 2, 3), radii (K, 2), parts (K,), creases (L, 2,
    3).
    """
    width = rng.uniform(0.93, 1.07)
    knuckles = KNUCKLES * [width, 1.0, 1.0]
    wrists = knuckles * [0.52, 0.0, 0.3] + [0.0, 0.10, 0.0]
    bones = [(w, k, 0.17, PALM_RADIUS, PALM) for w, k in zip(wrists, knuckles, strict=True)]
    for x in (-0.10, 0.12):  # the flesh between the metacarpals
        bones.append((np.array([x, 0.22, 0.0]), np.array([x * width, 0.90, -0.02]), 0.20, 0.15, PALM))
    bones.append((knuckles[0] - [0.03, 0.09, 0.0], knuckles[3] + [0.03, -0.04, 0.0], 0.13, 0.12, PALM))
    bones.append(
        (np.array([-0.20, 0.18, 0.04]), np.array([-0.33, 0.72, 0.05]), 0.18, 0.15, PALM)
    )  # the little finger's side
    creases = [(line[0], line[1]) for line in PALM_LINES]
    curls = _curls(rng, pose)
    spread = rng.uniform(0.2, 1.7) * np.clip(1.15 - curls[1:].mean(), 0.15, 1)
    for i in range(4):
        _finger(rng, bones, creases, knuckles[i], LENGTHS[i], RADII[i], SPREADS[i] * spread, curls[i + 1])
    _thumb(rng, bones, creases, curls[0])
    ends = np.array([(p, q) for p, q, *_ in bones])
    radii = np.array([(r0, r1) for _, _, r0, r1, _ in bones]) * thick
    return ends, radii, np.array([part for *_, part in bones]), np.array(creases)


def _finger(
    rng, bones: list, creases: list, knuckle, length: float, radius: float, sideways: float, curl: float
) -> None:
    """Adds three phalanges, a nail and the creases of one finger."""
    length = length * rng.normal(1.0, 0.05)
    sideways = sideways + rng.normal(0, 0.04)
    side = np.array([np.cos(sideways), -np.sin(sideways), 0.0])
    joint, bent, r = knuckle, 0.0, radius
    for k in range(3):
        bent += FLEXION[k] * curl * rng.normal(1.0, 0.05) + rng.normal(0, 0.03)
        along = np.array([np.sin(sideways) * np.cos(bent), np.cos(sideways) * np.cos(bent), np.sin(bent)])
        back = np.array([np.sin(sideways) * np.sin(bent), np.cos(sideways) * np.sin(bent), -np.cos(bent)])
        tip = joint + along * length * PHALANGES[k]
        thinner = r * (0.92 if k < 2 else 0.84)
        bones.append((joint, tip, r, thinner, FINGER if k < 2 else TIP))
        if k:
            for normal in (back, -back):
                creases.append((joint - side * r * 0.75 + normal * r, joint + side * r * 0.75 + normal * r))
        if k == 2:
            _nail(bones, joint, tip, back, thinner)
        joint, r = tip, thinner


def _nail(bones: list, joint, tip, back, radius: float) -> None:
    lift = back * radius * 0.50
    bones.append(
        (
            joint + (tip - joint) * 0.62 + lift,
            joint + (tip - joint) * 0.98 + lift,
            radius * 0.60,
            radius * 0.58,
            NAIL,
        )
    )


def _thumb(rng, bones: list, creases: list, curl: float) -> None:
    """Adds the ball of the thumb, its two phalanges, the nail and a crease."""
    away = rng.uniform(0.55, 1.05) * (1 - 0.45 * curl)
    root = np.array([0.22, 0.20, 0.05])
    outward = np.array([np.sin(away), np.cos(away), 0.35 + 0.45 * curl])
    base = root + outward / np.linalg.norm(outward) * 0.50
    bones.append((root, base, 0.20, 0.15, PALM))
    straight = np.array([np.sin(away * 0.8), np.cos(away * 0.8), 0.15])
    across = np.array([-0.70, 0.45, 0.55])
    joint, r = base, 0.140
    for k, length in enumerate((0.40, 0.34)):
        along = straight + (across - straight) * np.clip(curl * (0.85 + 0.35 * k), 0, 1)
        along = along / np.linalg.norm(along)
        side = np.cross(along, [0.5, -0.3, -0.8])
        side = side / np.linalg.norm(side)
        back = np.cross(side, along)
        back = back if back[2] < 0 else -back
        tip, thinner = joint + along * length, r * (0.90 if k == 0 else 0.84)
        bones.append((joint, tip, r, thinner, FINGER if k == 0 else TIP))
        if k:
            creases.append((joint - side * r * 0.75 + back * r, joint + side * r * 0.75 + back * r))
            _nail(bones, joint, tip, back, thinner)
        joint, r = tip, thinner
