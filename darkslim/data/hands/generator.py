"""The built-in hand generator: drawn pictures of hands, written in the layout of the Oxford hand data set.

    hand_dataset/training_dataset/training_data/images/training_00001.jpg
                                               annotations/training_00001.mat
    hand_dataset/validation_dataset/validation_data/...
    hand_dataset/test_dataset/test_data/...

Each `.mat` holds `boxes`, a 1 x N cell array of 1 x 1 structs with the fields a, b, c, d: the corners of a
rotated box around the hand without its arm, each 1 x 2 double, [y x], the first pixel being 1. a and b lie at
the wrist, c and d at the fingertips; a corner may lie outside the picture where the border cuts a hand.

The pictures are drawn by `hand_drawing`; what a hand is stands in `hand_model`.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from PIL import Image

from ...base.cores import cores
from ...base.errors import DatasetError, FileError, RequestError
from .drawing import Hand, draw

SPLITS = ("training", "validation", "test")
QUALITY = 88  # of the JPEG files
SMALLEST, LARGEST = 64, 4096  # sides of a picture
ALONE = 64  # so few pictures are drawn sooner than other processes start
MAT_HEADER = b"MATLAB 5.0 MAT-file, boxes of hands"  # in place of scipy's, which holds the time


def generate(
    folder: Path | str,
    counts: dict[str, int],
    seed: int = 0,
    progress: Callable[..., Iterable] | None = None,
    size: tuple[int, int] = (400, 300),
    workers: int | None = None,
) -> dict[str, dict[str, int]]:
    """Draws a data set of hands. A seed gives the same bytes, whatever the number of workers; a longer data
    set begins with the pictures of a shorter one.

    Args:
        folder: becomes `hand_dataset`; it may be absent or empty. Everything is drawn in a folder beside it
            and moved here when it is complete.
        counts: how many pictures `training`, `validation` and `test` get; a split that is not named gets
            none.
        seed: 0 or more.
        progress: wraps an iterable as `progress(items, total=..., desc=...)`, as `commands.progress` does.
        size: width and height about which the pictures vary: 0.85 to 1.15 times, some of them upright.
        workers: processes; None: one a core.

    Returns:
        For each split the number of `images` and `hands`.

    Raises:
        RequestError: counts, seed or size that cannot be met, or a folder that holds something.
        FileError: the folder cannot be written.
        DatasetError: a process that drew died.
    """
    folder = Path(folder)
    counts = _checked(counts, seed, size)
    _refuse_used(folder)
    temp = folder.with_name(f".{folder.name}.{os.getpid()}.drawing")
    done = {split: {"images": 0, "hands": 0} for split in SPLITS}
    try:
        for split in SPLITS:
            for kind in ("images", "annotations"):
                (split_folder(temp, split) / kind).mkdir(parents=True, exist_ok=True)
        jobs = [(str(temp), split, index, seed, size) for split in SPLITS for index in range(counts[split])]
        written = _run(jobs, workers)
        for split, hands in progress(written, total=len(jobs), desc="drawing hands") if progress else written:
            done[split]["images"] += 1
            done[split]["hands"] += hands
        if hasattr(os, "sync"):
            # once for thousands of small files, before the folder gets the name that means complete
            os.sync()
        os.replace(temp, folder)
    except OSError as e:
        raise FileError(
            folder,
            f"cannot be written ({e.strerror or e})",
            remedy="check the folder and the space on the disk",
        ) from e
    except BrokenProcessPool:
        raise DatasetError(
            folder, "a process that drew pictures died", remedy="draw with fewer workers, or with more memory"
        ) from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return done


def split_folder(root: Path, split: str) -> Path:
    """Where the images and annotations of a split lie under `hand_dataset`."""
    return root / f"{split}_dataset" / f"{split}_data"


def picture(
    seed: int, split: str, index: int, size: tuple[int, int] = (400, 300)
) -> tuple[np.ndarray, list[Hand]]:
    """The pixels (H, W, 3) uint8 and the hands of one picture, as `generate` draws it before JPEG."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    width, height = (
        int(round(side * factor)) for side, factor in zip(size, rng.uniform(0.85, 1.15, 2), strict=True)
    )
    if rng.random() < 0.15:
        width, height = height, width
    return draw(rng, width, height)


def mat_bytes(quads: list[np.ndarray]) -> bytes:
    """An annotation file.

    Args:
        quads: (4, 2) corners x, y, pixel centres on whole numbers and the first one on 0.
    """
    from scipy.io import savemat

    boxes = np.empty((1, len(quads)), dtype=object)
    for i, quad in enumerate(quads):
        boxes[0, i] = {
            name: corner[None, ::-1] + 1.0
            for name, corner in zip("abcd", np.asarray(quad, float), strict=True)
        }
    stream = io.BytesIO()
    savemat(stream, {"boxes": boxes})
    return MAT_HEADER.ljust(116) + stream.getvalue()[116:]


def _checked(counts: dict[str, int], seed: int, size: tuple[int, int]) -> dict[str, int]:
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise RequestError("counts", f"names the split {unknown[0]!r}", f"one of {', '.join(SPLITS)}")
    if min(counts.values(), default=0) < 0 or not any(counts.values()):
        raise RequestError("counts", f"asks for {counts}", "no count below 0, and at least one picture")
    if seed < 0:
        raise RequestError("seed", f"is {seed}", "0 or more")
    if not all(SMALLEST <= side <= LARGEST for side in size):
        raise RequestError("size", f"is {size[0]} x {size[1]}", f"sides of {SMALLEST} to {LARGEST} pixels")
    return {split: counts.get(split, 0) for split in SPLITS}


def _refuse_used(folder: Path) -> None:
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise RequestError(
                folder,
                "holds something already",
                "a new or an empty folder",
                "remove it, or name another one",
            )
        if folder.exists() and not folder.is_dir():
            raise FileError(folder, "is a file", "a folder")
    except OSError as e:
        raise FileError(
            folder, f"cannot be opened ({e.strerror or e})", remedy="choose another folder"
        ) from e


def _run(jobs: list[tuple], workers: int | None) -> Iterator[tuple[str, int]]:
    """Draws every job; yields its split and its number of hands, in the order of the jobs."""
    if workers is None:
        workers = cores() if len(jobs) > ALONE else 1
    if workers <= 1:
        yield from map(_write_one, jobs)
        return
    # spawned: a fork would copy the locks of torch's and numpy's threads
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_leave_signals)
    try:
        yield from pool.map(_write_one, jobs, chunksize=max(1, min(16, len(jobs) // workers)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _write_one(job: tuple[str, str, int, int, tuple[int, int]]) -> tuple[str, int]:
    root, split, index, seed, size = job
    pixels, hands = picture(seed, split, index, size)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    folder, name = split_folder(Path(root), split), f"{split}_{index + 1:05d}"
    (folder / "images" / f"{name}.jpg").write_bytes(stream.getvalue())
    (folder / "annotations" / f"{name}.mat").write_bytes(mat_bytes([hand.quad for hand in hands]))
    return split, len(hands)
