"""What the last check of a list found to be good, so that the next one need not decode every picture again.

The file lies beside the list, hidden: `.train.txt.cache`. It is an uncompressed `.npz` of plain numbers, read
with `allow_pickle=False`, and whatever is wrong with it, it is as if it were not there. It can only spare
work: a picture or label is looked up by its path, size, inode, and times of content *and* status change,
which an edit that keeps the length and sets the modification time back cannot forge. Files changed within the
last seconds are not stored, since a clock tick could hide another edit. Only what had no problem is stored.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base import files
from ..base.errors import DarkslimError

VERSION = 1
SETTLED = 2_000_000_000  # ns since the last change of a file before its state is trusted
MAX_BYTES = 4 << 30
Key = tuple[int, int, int, int]
ABSENT: Key = (-1, -1, -1, -1)
_SHAPES = {
    "head": (np.int64, 1),
    "digest": (np.uint8, 1),
    "path": (np.uint8, 2),
    "image": (np.int64, 2),
    "label": (np.int64, 2),
    "info": (np.int64, 2),
    "offset": (np.int64, 1),
    "rows": (np.float32, 2),
}


@dataclass
class Known:
    """What is known about one picture and its label: width, height, EXIF orientation, whether it was decoded,
    clipped, duplicates.
    """

    width: int
    height: int
    orientation: int
    decoded: bool
    clipped: int
    duplicates: int
    rows: np.ndarray


def key(path) -> Key:
    """The state of a file: size, modification and change time in ns, inode; `ABSENT` if it is not there."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return ABSENT
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino & (2**63 - 1)


def cache_path(list_path) -> Path:
    """Where the cache of a list lies."""
    path = Path(list_path)
    return path.with_name(f".{path.name}.cache")


def _name(image: str) -> bytes:
    return hashlib.blake2b(os.fsencode(image), digest_size=16).digest()


class Cache:
    """Looks up what an earlier check found; empty if there is none that can be trusted."""

    def __init__(self, list_path, classes: int):
        self.data = _load(cache_path(list_path), classes)
        names = self.data["path"].tobytes() if self.data else b""
        self.index = {names[i : i + 16]: i // 16 for i in range(0, len(names), 16)}

    def __len__(self) -> int:
        return len(self.index)

    def get(self, image: str, image_key: Key, label_key: Key) -> Known | None:
        """What is known about a picture in just this state."""
        i = self.index.get(_name(image))
        if (
            i is None
            or tuple(self.data["image"][i].tolist()) != image_key
            or tuple(self.data["label"][i].tolist()) != label_key
        ):
            return None
        width, height, orientation, decoded, clipped, duplicates = self.data["info"][i].tolist()
        rows = self.data["rows"][self.data["offset"][i] : self.data["offset"][i + 1]]
        return Known(width, height, orientation, bool(decoded), clipped, duplicates, rows)


def save(list_path, classes: int, entries: list[tuple[str, Key, Key, Known]]) -> bool:
    """Writes the cache; a folder that cannot be written to is no error.

    Args:
        entries: path of the picture, its state, its label's state, what is known.

    Returns:
        Whether there is a cache now.
    """
    limit = time.time_ns() - SETTLED
    settled = [e for e in entries if max(e[1][1], e[1][2], e[2][1], e[2][2]) < limit and e[1] != ABSENT]
    if not settled:
        return False
    data = {
        "head": np.array([VERSION, classes], np.int64),
        "path": np.frombuffer(b"".join(_name(e[0]) for e in settled), np.uint8).reshape(-1, 16),
        "image": np.array([e[1] for e in settled], np.int64),
        "label": np.array([e[2] for e in settled], np.int64),
        "info": np.array(
            [(k.width, k.height, k.orientation, k.decoded, k.clipped, k.duplicates) for *_, k in settled],
            np.int64,
        ),
        "offset": np.cumsum([0, *(len(k.rows) for *_, k in settled)], dtype=np.int64),
        "rows": np.concatenate([k.rows for *_, k in settled]).astype(np.float32).reshape(-1, 5),
    }
    data["digest"] = _digest(data)
    stream = io.BytesIO()
    np.savez(stream, **data)
    try:
        files.save(cache_path(list_path), stream.getvalue())
    except DarkslimError:
        return False
    return True


def _digest(data: dict[str, np.ndarray]) -> np.ndarray:
    sha = hashlib.sha256()
    for name in sorted(data):
        if name != "digest":
            sha.update(f"{name}{data[name].shape}".encode())
            sha.update(np.ascontiguousarray(data[name]).tobytes())
    return np.frombuffer(sha.digest(), np.uint8)


def _load(path: Path, classes: int) -> dict[str, np.ndarray] | None:
    try:
        content = files.read_bytes(path, "cache", MAX_BYTES)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(
                i.compress_type != zipfile.ZIP_STORED or i.file_size > len(content)
                for i in archive.infolist()
            ):
                return None  # ours is never compressed, so nothing here can unfold to more than it is
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            if sorted(archive.files) != sorted(_SHAPES):
                return None
            data = {name: archive[name] for name in _SHAPES}
    except Exception:  # a broken zip raises nearly anything, and none of it matters: the work is done again
        return None
    return data if _sound(data, classes) else None


def _sound(data: dict[str, np.ndarray], classes: int) -> bool:
    if any(data[name].dtype != dtype or data[name].ndim != ndim for name, (dtype, ndim) in _SHAPES.items()):
        return False
    count, rows, offset, info = len(data["path"]), data["rows"], data["offset"], data["info"]
    if data["head"].tolist() != [VERSION, classes] or not np.array_equal(data["digest"], _digest(data)):
        return False
    shapes = {
        "path": (count, 16),
        "image": (count, 4),
        "label": (count, 4),
        "info": (count, 6),
        "offset": (count + 1,),
    }
    if any(data[name].shape != shape for name, shape in shapes.items()) or rows.shape[1:] != (5,):
        return False
    if (
        offset[0] != 0
        or offset[-1] != len(rows)
        or (np.diff(offset) < 0).any()
        or (info[:, :2] < 1).any()
        or (info < 0).any()
    ):
        return False
    if not np.isfinite(rows).all() or (rows[:, 0] != np.floor(rows[:, 0])).any():
        return False
    return bool(
        (rows[:, 0] >= 0).all()
        and (rows[:, 0] < classes).all()
        and (rows[:, 1:] >= 0).all()
        and (rows[:, 1:] <= 1).all()
        and (rows[:, 3:] > 0).all()
    )
