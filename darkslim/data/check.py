"""The whole data set looked at before the first epoch: every path, every picture, every row of every label.

Nothing is edited, and nothing is written but the cache. All problems are counted; the first ten are named.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..base.cores import cores
from ..base.errors import DatasetError
from . import check_cache
from .check_cache import Known
from .images import check_image, open_image
from .labels import read_labels
from .limits import MAX_PIXELS
from .listing import find_label, label_path, read_list

SHOWN = 10
UNREADABLE = {"missing image", "unusable image", "unreadable label"}  # what --skip_broken leaves out


@dataclass
class Report:
    """What a list of pictures holds.

    Attributes:
        list_path: the list file.
        classes: number of classes.
        images: the paths, in the list's order.
        sizes: (n, 2) width and height as stored.
        rows: (boxes, 5) float32 class, x, y, w, h in 0..1; those of picture i are rows[offsets[i]:offsets[i +
            1]].
        offsets: (n + 1,).
        counts: images, boxes, background (empty label), missing_labels, clipped, duplicates, rotated (EXIF),
            cached.
        problems: how many there are of each kind.
        offenders: the first ten problems, `file:line what`.
        left_out: what was wrong with the pictures that `skip_broken` left out; no other field has them.
        unlabelled: the first ten images without a label file.
        max_pixels: what a picture may have.
    """

    list_path: Path
    classes: int
    images: list[str]
    sizes: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    counts: dict[str, int]
    problems: Counter = field(default_factory=Counter)
    offenders: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    max_pixels: int = MAX_PIXELS
    _entries: list[tuple] = field(default_factory=list, repr=False)  # what the cache does not hold yet

    def remember(self) -> None:
        """Writes the cache, if there is anything new to write."""
        if self._entries:
            check_cache.save(self.list_path, self.classes, self._entries)
            self._entries = []

    def labels(self, i: int) -> np.ndarray:
        """(n, 5) boxes of picture i."""
        return self.rows[self.offsets[i] : self.offsets[i + 1]]

    def subset(self, indices: Sequence[int]) -> Report:
        """The report of some of the pictures, in the order given. Its counts are those of pictures and
        boxes.
        """
        rows = [self.labels(i) for i in indices]
        counts = {"images": len(rows), "boxes": sum(map(len, rows))}
        return Report(
            self.list_path,
            self.classes,
            [self.images[i] for i in indices],
            self.sizes[list(indices)],
            np.concatenate(rows) if rows else self.rows[:0],
            np.cumsum([0, *map(len, rows)]),
            counts,
            max_pixels=self.max_pixels,
        )

    def per_class(self) -> list[int]:
        """Number of boxes of each class."""
        return np.bincount(self.rows[:, 0].astype(int), minlength=self.classes).tolist()

    def to_dict(self) -> dict:
        """What `--json` writes."""
        return {
            "list": str(self.list_path),
            **self.counts,
            "per_class": self.per_class(),
            "left_out": self.left_out,
        }


@dataclass
class _Found:
    image_key: check_cache.Key
    label_key: check_cache.Key
    known: Known | None = None
    cached: bool = False
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, text)


def check_dataset(
    list_path,
    classes: int,
    *,
    decode: bool = True,
    cache: bool = True,
    save: bool = True,
    need_boxes: bool = False,
    skip_broken: bool = False,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    progress: Callable | None = None,
) -> Report:
    """Checks every picture and label of a list.

    Args:
        decode: decode every picture, which finds truncated ones; otherwise only headers are read.
        cache: use and write the hidden cache beside the list.
        save: False leaves the writing to `report.remember()`, for a caller that has more to check before
            anything is written.
        need_boxes: a list without a single box is an error: training and mAP mean nothing on it.
        skip_broken: pictures and label files that cannot be read are left out, and named in a warning. A row
            of a label that makes no sense still is an error: then a data set was converted wrongly.
        max_pixels: a picture of more is refused.
        progress: wraps an iterator as tqdm does, called with total= and desc=.

    Raises:
        DatasetError: the list cannot be read, or anything in it cannot be used. Nothing is written then.
        What can be used is only warned about: missing labels, boxes partly outside (clipped), repeated rows,
            EXIF rotation.
    """
    images = read_list(list_path)
    store = check_cache.Cache(list_path, classes) if cache else None
    threads = threads or min(8, cores())
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda image: _look(image, classes, decode, store, max_pixels), images)
        found = list(progress(results, total=len(images), desc="checking") if progress else results)
    left_out = []
    if skip_broken:
        left_out = [text for f in found for kind, text in f.problems if kind in UNREADABLE]
        kept = [not any(kind in UNREADABLE for kind, _ in f.problems) for f in found]
        images, found = ([x for x, keep in zip(xs, kept, strict=True) if keep] for xs in (images, found))
        if not images:
            raise DatasetError(list_path, f"nothing is left: {_some(left_out)}")
    report = _report(Path(list_path), classes, images, found)
    report.left_out, report.max_pixels = left_out, max_pixels
    if report.problems:
        raise _error(report, found)
    if need_boxes and not len(report.rows):
        raise DatasetError(
            list_path,
            f"no box in {len(images)} images, {report.counts['missing_labels']} of which have no label file",
            f"labels such as {label_path(images[0])}",
            "run converter.py, or put the labels there",
        )
    if cache and report.counts["cached"] < len(images):
        report._entries = [
            (image, f.image_key, f.label_key, f.known) for image, f in zip(images, found, strict=True)
        ]
    if save:
        report.remember()
    _warn(report)
    return report


def shared(train: Report, valid: Report) -> str | None:
    """Says how many pictures, by their paths, the network is trained and validated on; None if none."""
    both = {os.path.realpath(p) for p in train.images} & {os.path.realpath(p) for p in valid.images}
    if not both:
        return None
    return (
        f"warning: {len(both)} of {len(valid.images)} images of {valid.list_path} are in {train.list_path} "
        "as well: their mAP flatters"
    )


def _look(image: str, classes: int, decode: bool, store: check_cache.Cache | None, max_pixels: int) -> _Found:
    """One picture and its label."""
    label = find_label(image)
    found = _Found(check_cache.key(image), check_cache.key(label))
    if store is not None:
        found.known = store.get(image, found.image_key, found.label_key)
        known = found.known
        if known is not None and (known.decoded or not decode) and known.width * known.height <= max_pixels:
            found.cached = True
            return found
    width = height = orientation = 1
    if found.image_key == check_cache.ABSENT:
        found.problems.append(("missing image", f"{image} does not exist"))
    else:
        try:
            if decode:
                width, height, orientation = check_image(image, max_pixels)
            else:
                with open_image(image, max_pixels) as opened:
                    width, height = opened.size
        except DatasetError as e:
            found.problems.append(("unusable image", str(e)))
    rows, clipped, duplicates = np.zeros((0, 5), np.float32), 0, 0
    if found.label_key != check_cache.ABSENT:
        try:
            labels = read_labels(label, classes)
            rows, clipped, duplicates = labels.rows, labels.clipped, labels.duplicates
            found.problems += [("bad label row", f"{label}:{line} {text}") for line, text in labels.problems]
        except DatasetError as e:
            found.problems.append(("unreadable label", str(e)))
    found.known = Known(width, height, orientation, decode, clipped, duplicates, rows)
    return found


def _report(list_path: Path, classes: int, images: list[str], found: list[_Found]) -> Report:
    lengths = [len(f.known.rows) for f in found]
    problems = [problem for f in found for problem in f.problems]
    missing = sum(f.label_key == check_cache.ABSENT for f in found)
    counts = {
        "images": len(images),
        "boxes": sum(lengths),
        "background": lengths.count(0) - missing,
        "missing_labels": missing,
        "clipped": sum(f.known.clipped for f in found),
        "duplicates": sum(f.known.duplicates for f in found),
        "rotated": sum(f.known.orientation != 1 for f in found),
        "cached": sum(f.cached for f in found),
    }
    return Report(
        list_path,
        classes,
        images,
        np.array([(f.known.width, f.known.height) for f in found], np.int64),
        np.concatenate([f.known.rows for f in found]).astype(np.float32),
        np.cumsum([0, *lengths]),
        counts,
        Counter(kind for kind, _ in problems),
        [text for _, text in problems[:SHOWN]],
        unlabelled=[
            image for image, f in zip(images, found, strict=True) if f.label_key == check_cache.ABSENT
        ][:SHOWN],
    )


def _error(report: Report, found: list[_Found]) -> DatasetError:
    affected = sum(bool(f.problems) for f in found)
    kinds = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in report.problems.items())
    base = ""
    if found[0].image_key == check_cache.ABSENT and not os.path.isabs(report.images[0]):
        base = f"relative paths start from the current folder ({Path.cwd()})"
    shown = _some(report.offenders, sum(report.problems.values()))
    return DatasetError(
        report.list_path,
        f"{kinds} in {affected} of {len(found)} images: {shown}",
        base,
        "put them right, or take the images off the list"
        + (" (--skip_broken leaves out what cannot be read)" if UNREADABLE & set(report.problems) else ""),
    )


def _some(texts: list[str], total: int | None = None) -> str:
    """The first ten, and how many more there are."""
    more = (len(texts) if total is None else total) - min(len(texts), SHOWN)
    return " | ".join(texts[:SHOWN]) + (f" | and {more} more" if more > 0 else "")


def _warn(report: Report) -> None:
    texts = {
        "missing_labels": "images have no label file and count as background"
        + (
            f" ({label_path(report.unlabelled[0])} and the like are looked for): "
            if report.unlabelled
            else ""
        )
        + ", ".join(report.unlabelled),
        "clipped": "boxes stick out of their image and were clipped",
        "duplicates": "rows repeat another row of their label file and count once",
        "rotated": "images have an EXIF rotation, which is ignored: boxes are those of the stored pixels",
    }
    if report.left_out:
        text = f"{report.list_path}: {len(report.left_out)} images were left out: {_some(report.left_out)}"
        warnings.warn(text, stacklevel=3)
    for name, text in texts.items():
        if report.counts[name]:
            warnings.warn(f"{report.list_path}: {report.counts[name]} {text}", stacklevel=3)
