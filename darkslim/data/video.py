"""Frames of a video file, a camera or a stream, decoded ahead by a thread of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..base.errors import DatasetError
from ..base.libraries import library

MOVING = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mjpeg", ".mjpg", ".gif")
AHEAD = 16  # frames
USUAL = 25.0  # frames a second, where the source does not say


def is_video(source: str) -> bool:
    """Whether a source is a video file, the number of a camera, or the address of a stream."""
    return "://" in source or source.isdigit() or Path(source).suffix.lower() in MOVING


class Video:
    """Frames in their order, as (number, RGB uint8 (H, W, 3)).

    Of a file every frame is given. Of a camera or a stream, which does not wait, the newest ones are: what
    comes in while the last frames are worked on and does not fit into the queue is dropped, and counted.

    Args:
        source: a path, the number of a camera, or an address (rtsp, http, ...). max_pixels: of a frame.
        stop: true once nobody wants more.

    Attributes:
        size: (width, height). fps: frames a second. count: of frames, None where nobody knows.
        live: whether it does not wait. dropped: frames that nobody saw.

    Raises:
        RequestError: OpenCV is not installed. DatasetError: it cannot be opened, or its frames are too large.
    """

    def __init__(self, source: str, max_pixels: int, stop=()):
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said here, in one line
        cv2 = library("cv2")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self.source, self.stop = source, stop
        if "://" not in source and not source.isdigit() and not Path(source).is_file():
            raise DatasetError(source, "no such video", remedy="check the path")
        self.capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
        wide, high = (int(self.capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if not self.capture.isOpened() or wide < 1 or high < 1:
            self.capture.release()
            raise DatasetError(
                source, "cannot be opened", "a video that FFmpeg knows, or a camera or stream that is up"
            )
        if wide * high > max_pixels:
            self.capture.release()
            raise DatasetError(
                source, f"frames of {wide}x{high} pixels", f"at most {max_pixels:,}", "raise --max_pixels"
            )
        frames, fps = (self.capture.get(k) for k in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        self.size = (wide, high)
        self.count = int(frames) if 0 < frames < 1 << 40 else None
        self.live = source.isdigit() or ("://" in source and self.count is None)
        self.fps = float(fps) if 0.1 <= fps <= 1000 else USUAL
        self.dropped = 0
        self._cv2, self._stop = cv2, threading.Event()
        self._queue: queue.Queue = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Video:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        while not self._queue.empty():  # room for a thread that waits for it
            self._queue.get_nowait()
        self._thread.join(5)
        if not self._thread.is_alive():  # a stream that hangs is left to the end of the process
            self.capture.release()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        while not self.stop:
            try:
                item = self._queue.get(timeout=0.2)  # so that an end that is asked for is heard
            except queue.Empty:
                if not self._thread.is_alive():
                    return
                continue
            if item is None:
                return
            yield item

    def _read(self) -> None:
        number = 0
        while not self._stop.is_set():
            good, frame = self.capture.read()
            if not good:
                break
            self._put((number, self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)))
            number += 1
        self._put(None)

    def _put(self, item) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, block=not self.live, timeout=0.2)
                return
            except queue.Full:
                if self.live:
                    with contextlib.suppress(queue.Empty):  # taken meanwhile: there is room now
                        self._queue.get_nowait()
                        self.dropped += 1
