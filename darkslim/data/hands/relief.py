"""A small z-buffer: rounded solids laid over each other, then lit together.

Every solid adds a height above the picture plane for the pixels that it covers, and the highest one wins. One
pass over the heights then gives the normals, so that rounding, the dark seams between two fingers and the lit
edge of a fist all come from the same geometry (Lambert's law, with an ambient part).

Coordinates are pixels, x right, y down, z towards the viewer; pixel centres lie on whole numbers.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

FAR = np.float32(-1e4)


class Relief:
    """Heights, coverage and parts over the pixels x0 <= x < x0 + width, y0 <= y < y0 + height.

    Attributes:
        height: (H, W) float32, FAR where nothing stands.
        cover: (H, W) float32 in 0..1, the share of a pixel that is covered.
        part: (H, W) uint8, the part that is seen, 0 for nothing.
    """

    def __init__(self, x0: int, y0: int, width: int, height: int):
        self.x0, self.y0 = x0, y0
        self.x = np.arange(x0, x0 + width, dtype=np.float32)[None, :]
        self.y = np.arange(y0, y0 + height, dtype=np.float32)[:, None]
        self.height = np.full((height, width), FAR, np.float32)
        self.cover = np.zeros((height, width), np.float32)
        self.part = np.zeros((height, width), np.uint8)

    @classmethod
    def around(cls, ends: np.ndarray, radii: np.ndarray, limit: tuple[int, int] | None = None) -> Relief:
        """Room for capsules (K, 2, 3) with radii (K, 2), cut to a picture of `limit` (width, height) if one
        is given.
        """
        low = np.floor((ends[..., :2] - radii[..., None]).min(axis=(0, 1))).astype(int) - 2
        high = np.ceil((ends[..., :2] + radii[..., None]).max(axis=(0, 1))).astype(int) + 3
        if limit:
            low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
        return cls(int(low[0]), int(low[1]), max(0, int(high[0] - low[0])), max(0, int(high[1] - low[1])))

    def _window(self, x1: float, y1: float, x2: float, y2: float) -> tuple[slice, slice] | None:
        rows, columns = self.height.shape
        left, right = max(0, int(x1) - self.x0 - 1), min(columns, int(x2) - self.x0 + 3)
        top, bottom = max(0, int(y1) - self.y0 - 1), min(rows, int(y2) - self.y0 + 3)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def _put(self, window, height, cover, part: int) -> None:
        view = self.height[window]
        seen = (cover > 0) & (height > view)
        view[seen] = height[seen]
        self.part[window][seen] = part
        np.maximum(self.cover[window], cover, out=self.cover[window])

    def _capsule_field(self, window, start, end, r0: float, r1: float):
        """Over a window: squared distance to the axis, the radius and the axis' height at the nearest
        point.
        """
        vx, vy, vz = (float(e) - float(s) for s, e in zip(start, end, strict=True))
        length2 = vx * vx + vy * vy
        dx, dy = self.x[:, window[1]] - np.float32(start[0]), self.y[window[0]] - np.float32(start[1])
        if length2 < 1e-2:  # straight towards the viewer: only the nearer end is seen
            near = 1.0 if vz > 0 else 0.0
            t = np.full((dy.shape[0], dx.shape[1]), near, np.float32)
        else:
            t = np.clip(dx * np.float32(vx / length2) + dy * np.float32(vy / length2), 0, 1)
        distance2 = (dx - t * np.float32(vx)) ** 2 + (dy - t * np.float32(vy)) ** 2
        return distance2, np.float32(r0) + t * np.float32(r1 - r0), np.float32(start[2]) + t * np.float32(vz)

    def capsule(self, start, end, r0: float, r1: float, part: int) -> None:
        """A rod with round ends from `start` to `end` (x, y, z), radii r0 and r1."""
        r = max(r0, r1)
        (left, right), (top, bottom) = sorted((start[0], end[0])), sorted((start[1], end[1]))
        window = self._window(left - r, top - r, right + r, bottom + r)
        if window is None:
            return
        distance2, radius, axis = self._capsule_field(window, start, end, r0, r1)
        cover = np.clip(radius + np.float32(0.5) - np.sqrt(distance2), 0, 1)
        self._put(window, axis + np.sqrt(np.maximum(radius * radius - distance2, 0)), cover, part)

    def ellipsoid(self, centre, a: float, b: float, depth: float, angle: float, part: int) -> None:
        """Half axes a and b in the picture, turned by `angle` (radians), and `depth` towards the viewer."""
        r = max(a, b)
        window = self._window(centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r)
        if window is None:
            return
        dx, dy = self.x[:, window[1]] - np.float32(centre[0]), self.y[window[0]] - np.float32(centre[1])
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        q = ((dx * c + dy * s) / np.float32(a)) ** 2 + ((dy * c - dx * s) / np.float32(b)) ** 2
        cover = np.clip((1 - np.sqrt(q)) * np.float32(min(a, b)) + np.float32(0.5), 0, 1)
        self._put(
            window, np.float32(centre[2]) + np.float32(depth) * np.sqrt(np.maximum(1 - q, 0)), cover, part
        )

    def blend(self, ends, radii, softness: float, part: int) -> None:
        """Capsules (K, 2, 3) melted into one smooth body: a palm. `softness` is the width of the melting, in
        pixels.

        The distances are joined by a smooth minimum, -s log sum exp(-d / s), and the body rises from its
        outline like a cushion.
        """
        low, high = (
            (ends[..., :2] - radii[..., None]).min(axis=(0, 1)),
            (ends[..., :2] + radii[..., None]).max(axis=(0, 1)),
        )
        window = self._window(low[0] - softness, low[1] - softness, high[0] + softness, high[1] + softness)
        if window is None:
            return
        total = axes = None
        for (start, end), (r0, r1) in zip(ends, radii, strict=True):
            distance2, radius, axis = self._capsule_field(window, start, end, r0, r1)
            weight = np.exp(np.clip((radius - np.sqrt(distance2)) / np.float32(softness), -40, 40))
            total, axes = (weight, weight * axis) if total is None else (total + weight, axes + weight * axis)
        inside = np.log(total) * np.float32(softness)
        rim = np.float32(radii.mean())
        cushion = rim * np.sqrt(np.maximum(1 - (1 - np.clip(inside / rim, 0, 1)) ** 2, 0))
        self._put(window, axes / total + cushion, np.clip(inside + np.float32(0.5), 0, 1), part)

    def shade(self, palette: np.ndarray, light, ambient: float, gloss: float = 0.0) -> np.ndarray:
        """The lit colours (H, W, 3) float32, 0..255 but not clipped.

        Args:
            palette: (parts + 1, 3) colour of each part.
            light: (3,) unit vector towards the light, z towards the viewer.
            ambient: the share of light that comes from everywhere.
            gloss: strength of the highlight.
        """
        if min(self.height.shape) < 2:
            return np.broadcast_to(palette.astype(np.float32)[0], (*self.height.shape, 3))
        standing = self.height > FAR / 2
        floor = self.height.min(where=standing, initial=-FAR)
        gy, gx = np.gradient(np.where(standing, self.height, floor))
        gx, gy = np.clip(gx, -3, 3), np.clip(gy, -3, 3)
        up = 1 / np.sqrt(1 + gx * gx + gy * gy)
        lit = np.maximum(
            (np.float32(light[2]) - gx * np.float32(light[0]) - gy * np.float32(light[1])) * up, 0
        )
        # what faces sideways also sees less of the surroundings: the seams between fingers are dark
        tone = (
            np.float32(ambient) * (np.float32(0.35) + np.float32(0.65) * up) + np.float32(1 - ambient) * lit
        )
        colours = palette.astype(np.float32)[self.part] * tone[..., None]
        if gloss:
            lit4 = (lit * lit) ** 2
            colours += (np.float32(255 * gloss) * lit4 * lit4 * lit4)[..., None]
        return colours

    def trimmed(self) -> Relief:
        """The same solids in no more room than they take."""
        rows, columns = np.flatnonzero(self.cover.any(axis=1)), np.flatnonzero(self.cover.any(axis=0))
        if not len(rows):
            return Relief(self.x0, self.y0, 0, 0)
        (top, bottom), (left, right) = rows[[0, -1]] + [0, 1], columns[[0, -1]] + [0, 1]
        small = Relief(self.x0 + int(left), self.y0 + int(top), int(right - left), int(bottom - top))
        for name in ("height", "cover", "part"):
            setattr(small, name, getattr(self, name)[top:bottom, left:right])
        return small

    def window_in(self, width: int, height: int) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Slices (into a picture, into this relief) of what lies inside a picture of that size."""
        rows, columns = self.height.shape
        left, right, top, bottom = (
            max(0, self.x0),
            min(width, self.x0 + columns),
            max(0, self.y0),
            min(height, self.y0 + rows),
        )
        if left >= right or top >= bottom:
            return None
        return (
            (slice(top, bottom), slice(left, right)),
            (slice(top - self.y0, bottom - self.y0), slice(left - self.x0, right - self.x0)),
        )


def smooth_noise(rng: np.random.Generator, width: int, height: int, cells_x: int, cells_y: int) -> np.ndarray:
    """(H, W) float32 values near -1..1 that change over about width / cells_x pixels."""
    coarse = rng.random((cells_y, cells_x), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
