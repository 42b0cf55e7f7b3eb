"""What `--source` names: a picture, a folder of them, a glob, or a list file."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DatasetError
from .images import fit, place, read_image, to_array
from .limits import SUFFIXES
from .listing import read_list
from .video import is_video

MOST = 1_000_000  # pictures of a folder or a glob


def pictures(source: str) -> list[str]:
    """The pictures of a source, in the order of their names; those of a list in its order.

    Raises:
        DatasetError: nothing there, no pictures among it, or something that is not read here.
    """
    path = Path(source)
    if is_video(source):
        raise DatasetError(source, "is a video or a stream", "pictures: a file, a folder, a glob or a list")
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        return _some(source, [str(p) for p in found[: MOST + 1]])
    if path.exists():
        return read_list(path) if path.suffix.lower() == ".txt" else [str(path)]
    if glob.has_magic(source):
        found = (p for p in glob.iglob(source, recursive=True) if Path(p).suffix.lower() in SUFFIXES)
        return _some(source, sorted(p for p in found if Path(p).is_file()))
    raise DatasetError(source, "no such picture, folder or list", remedy="check the path")


def _some(source: str, found: list[str]) -> list[str]:
    if not found:
        raise DatasetError(source, "holds no picture", f"files that end in {', '.join(SUFFIXES)}")
    if len(found) > MOST:
        raise DatasetError(
            source, f"holds more than {MOST:,} pictures", remedy="take a part of them at a time"
        )
    return found


class Pictures:
    """Pictures as the network wants them, for a torch DataLoader; what cannot be read is its error.

    Args:
        paths: of the pictures. size: (height, width) of the input. letterbox, channels, resize: as the
            network has them. max_pixels: of a picture.
    """

    def __init__(self, paths: list[str], size, letterbox: bool, channels: int, resize: str, max_pixels: int):
        self.paths, self.size, self.letterbox = paths, size, letterbox
        self.channels, self.resize, self.max_pixels = channels, resize, max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        """(index, uint8 (H, W, C), rectangle for `images.unplace_boxes`, (width, height) that is stored), or
        (index, the parts of a DatasetError).
        """
        path = self.paths[index]
        try:
            image, stored = read_image(path, self.channels, max_pixels=self.max_pixels)
        except DatasetError as e:
            return index, (e.place, e.found, e.expected, e.remedy)
        rect = fit(stored, self.size, self.letterbox)
        return index, to_array(place(image, rect, self.size, stored, self.resize)), rect, stored


@dataclass(frozen=True)
class Batch:
    """Some of `Pictures`, together: one tensor comes out of a worker process as it is, where pictures one by
    one would be copied through a pipe.

    Attributes:
        indices: of those that could be read.
        images: uint8 (B, C, H, W) of these, in channels_last memory; None where there are none.
        places: rectangle and stored (width, height) of each.
        broken: (index, the parts of a DatasetError) of the others.
    """

    indices: list[int]
    images: Tensor | None
    places: list[tuple]
    broken: list[tuple[int, tuple]]


def together(items: list[tuple]) -> Batch:
    """Items of `Pictures` as a batch."""
    good = [item for item in items if len(item) != 2]
    images = None
    if good:
        images = torch.from_numpy(np.stack([item[1] for item in good])).permute(0, 3, 1, 2)
    return Batch(
        indices=[item[0] for item in good],
        images=images,
        places=[item[2:] for item in good],
        broken=[item for item in items if len(item) == 2],
    )
