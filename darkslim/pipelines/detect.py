"""Detection as a job: pictures in, boxes out, drawn and written as labels.

Reading, the network and drawing overlap: worker processes decode, threads draw and write.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from ..base import devices, files, records
from ..base.errors import DatasetError, RequestError
from ..base.observer import Observer, watched
from ..base.options import Options, choice, count, fraction, option, switch, text
from ..base.signals import StopFlag
from ..data import datafile, sources
from ..data.dataset import to_input
from ..data.images import read_image
from ..data.limits import MAX_PIXELS
from ..data.loader import start_worker
from ..data.resize import RESIZES
from ..data.video import is_video
from ..deploy.engines import ENGINES, open_file
from ..network import schema, weights
from ..network.graph import input_size
from ..report.boxes_drawn import draw, encoded
from ..report.contact_sheet import ContactSheet
from ..training.faults import plain_errors
from .detect_video import detect_video
from .detections import coco_rows, found_on, write_beside
from .running import running
from .settings import EXPORTED_HELP, WORKERS

AHEAD = 32  # pictures that wait to be drawn at most


@dataclass(frozen=True)
class DetectSettings(Options):
    """Settings of `detect`."""

    source: str = option(
        "data/samples",
        text,
        "a picture, a folder, a glob (in quotes), a list; a video, a camera's number, a stream's address",
        metavar="PATH",
    )
    model_def: str = option("config/yolov3-hand.cfg", text, "the network", metavar="CFG", reads=True)
    weights_path: str = option(
        "checkpoints/yolov3_ckpt.pth",
        text,
        "its weights: a .pth, .weights or packed file",
        metavar="FILE",
        reads=True,
    )
    exported: str | None = option(None, text, EXPORTED_HELP, metavar="FILE", reads=True)
    engine: str | None = option(
        None, choice(*ENGINES), "what runs it; none: torch-folded, or what reads --exported"
    )
    names: str | None = option(
        None,
        text,
        "names of the classes, one a line; none: those in --exported, or numbers",
        metavar="FILE",
        reads=True,
    )
    conf_thres: float = option(0.25, fraction(), "least score (objectness times class) of a detection")
    nms_thres: float = option(0.45, fraction(), "overlap from which the weaker of two boxes goes")
    img_size: int | None = option(None, count(32, 8192), "side of the square input; none: the cfg's size")
    resize: str = option("antialias", choice(*RESIZES), "how pictures are shrunk to the input")
    save: str | None = option("runs/detect", text, "where pictures with boxes go", metavar="DIR")
    no_pictures: bool = option(False, switch, "do not draw")
    save_labels: str | None = option(
        None,
        choice("darknet", "coco"),
        "also write labels: a text file a picture (class x y w h score), or one JSON for all",
    )
    crops: bool = option(False, switch, "also write every detection as a picture, in a folder a class")
    sheet: bool = option(False, switch, "also put up to 48 of them, small, on one picture: sheet.jpg")
    frames: int = option(0, count(), "of a video or a stream at most; 0: all")
    batch_size: int = option(8, count(1), "pictures at once; of a camera or a stream always one")
    n_cpu: int = option(WORKERS, count(0, 256), "processes that load pictures")
    skip_broken: bool = option(
        False, switch, "leave out pictures that cannot be read, and name them, instead of stopping"
    )
    max_pixels: int = option(
        MAX_PIXELS, count(1, 1 << 34), "pixels from which on a picture is refused as a trap for memory"
    )
    seed: int = option(0, count(0, 2**32 - 1), "seed of every random choice")
    device: str = option("auto", text, "auto, cpu, cuda or cuda:N")


def detect(settings: DetectSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Finds objects in pictures, draws and writes them.

    Returns:
        images (number), seconds, detections (file, and a list of class, name, score, x1, y1, x2, y2 in pixels
        of the picture), broken (files that were left out), save.

    Raises:
        DarkslimError: an input or a setting is wrong.
    """
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    device = devices.device(settings.device)
    devices.seed_everything(settings.seed)
    moving = is_video(settings.source)
    paths = [] if moving else sources.pictures(settings.source)
    model, names, size = network(settings, device)
    if moving:
        return detect_video(settings, model, names, size, device, observer, stop)
    out = Output(settings, paths)
    letterbox = bool(schema.values(model.cfg.net)["letter_box"])
    data = sources.Pictures(paths, size, letterbox, model.cfg.channels, settings.resize, settings.max_pixels)
    workers = {"num_workers": settings.n_cpu, "worker_init_fn": start_worker}
    loader = DataLoader(data, settings.batch_size, collate_fn=sources.together, **workers)
    progress = watched(observer, stop, "stopped while detecting; what was written stays")
    began, rows, broken = time.perf_counter(), [], []
    with plain_errors(), out, torch.inference_mode():
        for batch in progress(loader, total=len(loader), desc="detecting"):
            for index, found in found_in(batch, model, settings, names, paths, broken, device):
                rows.append({"file": paths[index], "detections": found})
                out.add(index, found)
    for path in broken:
        observer.say(f"left out: {path}")
    return {
        "images": len(rows),
        "seconds": time.perf_counter() - began,
        "detections": rows,
        "broken": broken,
        "save": settings.save,
        "img_size": size,
    }


def network(settings: DetectSettings, device: torch.device) -> tuple[nn.Module, list[str], tuple[int, int]]:
    """What runs, the names of its classes, and the (height, width) of its input."""
    if settings.exported is not None:
        model = open_file(settings.exported, settings.engine)
        carried = list(model.carried.names)
    else:
        model, carried = weights.load_model(settings.model_def, settings.weights_path), []
    classes, size = model.heads[0].classes, input_size(model.graph, settings.img_size)
    if settings.names is not None:
        names = datafile.read_names(settings.names, classes)
    else:
        names = carried if len(carried) == classes else [f"class {i}" for i in range(classes)]
    if settings.exported is None:
        model = running(model, settings.engine, size, device)
    return model, names, size


def found_in(
    batch: sources.Batch, model, settings, names, paths, broken: list, device
) -> Iterator[tuple[int, list]]:
    """(index, detections) of the pictures of a batch, those that cannot be read left out."""
    for index, parts in batch.broken:
        if not settings.skip_broken:
            raise DatasetError(*parts)
        broken.append(paths[index])
    if batch.images is None:
        return
    boxes = model(to_input(batch.images, device))
    found = found_on(boxes, batch.places, tuple(batch.images.shape[2:]), settings, names)
    yield from zip(batch.indices, found, strict=True)


class Output:
    """What is written: pictures, labels, crops; by threads, beside the network.

    Raises:
        RequestError: an output would fall on a picture that is read.
    """

    def __init__(self, settings: DetectSettings, paths: list[str]):
        self.settings, self.paths = settings, paths
        self.folder = None if settings.save is None else Path(settings.save)
        self.pool, self.waiting = ThreadPoolExecutor(2), []
        self.coco: list[dict] = []
        self.sheet = ContactSheet(len(paths)) if settings.sheet and settings.save is not None else None
        self.stems = stems(paths)
        if self.folder is not None:
            files.check_writable(self.folder / "x.png")
            mine = self.folder.resolve()
            for path in paths:  # below it may also lie their labels, which ours would be put over
                if mine in Path(path).resolve().parents:
                    raise RequestError(
                        "--save", f"{settings.save} holds the pictures themselves", "another folder"
                    )

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind, *_) -> None:
        with contextlib.ExitStack() as ends:
            ends.callback(self.pool.shutdown)
            if kind is None:
                self._settle(0)
                if self.sheet is not None:
                    files.save(self.folder / "sheet.jpg", encoded(self.sheet.picture(), ".jpg"))
                if self.folder is not None and self.settings.save_labels == "coco":
                    files.save(self.folder / "detections.json", records.to_json(coco_rows(self.coco)))
            else:
                for future in self.waiting:
                    future.cancel()

    def add(self, index: int, found: list[dict]) -> None:
        """Hands a picture over to be drawn and written."""
        s = self.settings
        if self.folder is None:
            return
        if s.save_labels == "coco":
            self.coco.append({"index": index, "file": self.paths[index], "found": found})
        if not s.no_pictures or s.crops or self.sheet is not None or s.save_labels == "darknet":
            self.waiting.append(self.pool.submit(self._write, index, found))
            self._settle(AHEAD)

    def _settle(self, most: int) -> None:
        """Waits until no more than so many are left; what went wrong in a thread is raised here."""
        while len(self.waiting) > most:
            future: Future = self.waiting.pop(0)
            future.result()

    def _write(self, index: int, found: list[dict]) -> None:
        s, path = self.settings, Path(self.paths[index])
        picture, stored = read_image(path, 3, max_pixels=s.max_pixels)
        suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        stem = self.stems[index]
        sheet = self.sheet is not None and self.sheet.wants(index)
        if not s.no_pictures or sheet:
            drawn = draw(picture, found)
            if sheet:
                self.sheet.add(drawn, index)
            if not s.no_pictures:
                files.save(self.folder / f"{stem}{suffix}", encoded(drawn, suffix))
        write_beside(s, self.folder, stem, picture, stored, found, suffix)


def stems(paths: list[str]) -> list[str]:
    """A name for each picture, two of one name told apart by a number."""
    seen: dict[str, int] = {}
    found = []
    for path in paths:
        stem = Path(path).stem
        seen[stem] = number = seen.get(stem, 0) + 1
        found.append(stem if number == 1 else f"{stem}_{number}")
    return found
