"""Detection in a video, of a camera or of a stream, frame by frame.

A thread decodes ahead, this one runs the network, a third draws and writes in the order of the frames.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..base import files, records
from ..base.observer import Observer
from ..base.signals import StopFlag
from ..data.dataset import to_input
from ..data.images import fit, place, to_array
from ..data.video import Video
from ..network import schema
from ..report.boxes_drawn import draw, encoded
from ..report.contact_sheet import ContactSheet
from ..report.video_file import VideoFile
from ..training.faults import plain_errors
from .detections import coco_rows, found_on, write_beside

KEPT = 500_000  # frames whose detections are told; of a stream that never ends the last ones
WAITING = 16  # frames that wait to be drawn


def detect_video(settings, network, names, size, device, observer: Observer, stop: StopFlag) -> dict:
    """Finds objects in every frame; as `detect`, whose rows also say which `frame` and which `second`.

    Args:
        network: what runs. names: of the classes. size: (height, width) of its input.
    """
    letterbox = bool(schema.values(network.cfg.net)["letter_box"])
    began, rows = time.perf_counter(), deque(maxlen=KEPT)
    with plain_errors(), Video(settings.source, settings.max_pixels, stop) as video, torch.inference_mode():
        count = video.count if not settings.frames else min(settings.frames, video.count or settings.frames)
        frames = islice(video, settings.frames or None)
        batches = grouped(frames, 1 if video.live else settings.batch_size)
        total = None if count is None or video.live else -(-count // settings.batch_size)
        with Frames(settings, video, count) as out:
            for batch in observer.progress(batches, total=total, desc="detecting"):
                if stop:
                    break  # a stream ends so; what was seen is kept
                stored = video.size
                rect = fit(stored, size, letterbox)
                inputs = np.stack([shown(p, rect, size, stored, network, settings) for _, p in batch])
                x = to_input(torch.from_numpy(inputs).permute(0, 3, 1, 2), device)
                all_found = found_on(network(x), [(rect, stored)] * len(batch), size, settings, names)
                for (number, pixels), found in zip(batch, all_found, strict=True):
                    row = {"file": settings.source, "frame": number, "second": number / video.fps}
                    rows.append({**row, "detections": found})
                    out.add(number, pixels, found)
        images, dropped = out.count, video.dropped
    if dropped:
        observer.say(f"{dropped} frames came in while others were worked on, and were dropped")
    return {
        "images": images,
        "dropped": dropped,
        "fps": video.fps,
        "seconds": time.perf_counter() - began,
        "detections": list(rows),
        "broken": [],
        "save": settings.save,
        "img_size": size,
        "stopped": bool(stop),
    }


def grouped(items: Iterable, size: int) -> Iterator[list]:
    """Lists of so many; the last may be shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def shown(pixels: np.ndarray, rect, size, stored, network, settings) -> np.ndarray:
    """A frame as the network wants it, uint8 (H, W, C)."""
    image = Image.fromarray(pixels)
    if network.cfg.channels == 1:
        image = image.convert("L")
    return to_array(place(image, rect, size, stored, settings.resize))


class Frames:
    """What is written of the frames, by a thread, in their order."""

    def __init__(self, settings, video: Video, count: int | None):
        self.settings, self.video, self.count = settings, video, 0
        self.folder = None if settings.save is None else Path(settings.save)
        source = settings.source
        self.stem = f"camera{source}" if source.isdigit() else Path(source.split("?")[0]).stem or "stream"
        self.pool, self.waiting = ThreadPoolExecutor(1), deque()
        self.sheet = ContactSheet(count) if settings.sheet and self.folder else None
        self.coco: list[dict] = []
        self.file = None
        if self.folder is not None:
            files.check_writable(self.folder / "x.mp4")

    def __enter__(self) -> Frames:
        if self.folder is not None and not self.settings.no_pictures:
            target = self.folder / f"{self.stem}.mp4"
            files.check_outputs({"--save": target}, {"--source": self.settings.source})
            self.file = VideoFile(target, self.video.size, self.video.fps)
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            while kind is None and self.waiting:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)
            if self.file is not None:
                self.file.close()
        if kind is None and self.folder is not None:
            if self.settings.save_labels == "coco":
                files.save(self.folder / "detections.json", records.to_json(coco_rows(self.coco)))
            if self.sheet is not None:
                files.save(self.folder / "sheet.jpg", encoded(self.sheet.picture(), ".jpg"))

    def add(self, number: int, pixels: np.ndarray, found: list[dict]) -> None:
        """Hands a frame over."""
        self.count += 1
        if self.folder is None:
            return
        if self.settings.save_labels == "coco":
            self.coco.append({"index": number, "file": f"{self.stem}_{number:06}", "found": found})
        self.waiting.append(self.pool.submit(self._write, self.count - 1, number, pixels, found))
        while len(self.waiting) > WAITING:
            future: Future = self.waiting.popleft()
            future.result()

    def _write(self, place: int, number: int, pixels: np.ndarray, found: list[dict]) -> None:
        s, name = self.settings, f"{self.stem}_{number:06}"
        picture = Image.fromarray(pixels)
        sheet = self.sheet is not None and self.sheet.wants(place)
        if self.file is not None or sheet:
            drawn = draw(picture, found)
            if self.file is not None:
                self.file.add(np.asarray(drawn))
            if sheet:
                self.sheet.add(drawn, place)
        write_beside(s, self.folder, name, picture, self.video.size, found, ".jpg")
