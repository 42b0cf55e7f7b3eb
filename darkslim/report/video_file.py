"""A video of pictures that come one by one; it has its name only once it is whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..base.errors import FileError
from ..base.libraries import library


class VideoFile:
    """An .mp4 file (MPEG-4).

    Args:
        path: where it goes. size: (width, height). fps: frames a second.

    Raises:
        FileError: it cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float):
        self.cv2 = library("cv2")
        self.path, self.part = path, path.with_name(f".{path.stem}.part{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        code = self.cv2.VideoWriter_fourcc(*"mp4v")
        self.writer = self.cv2.VideoWriter(str(self.part), code, fps, size)
        if not self.writer.isOpened():
            raise FileError(path, "cannot be written as a video", remedy="check the folder, or --no_pictures")

    def add(self, pixels: np.ndarray) -> None:
        """A frame, RGB uint8 (H, W, 3)."""
        self.writer.write(self.cv2.cvtColor(np.ascontiguousarray(pixels), self.cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Ends the file and gives it its name."""
        self.writer.release()
        if self.part.exists():
            os.replace(self.part, self.path)
