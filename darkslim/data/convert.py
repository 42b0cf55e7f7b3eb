"""What all converters share: the plan that a reader makes, and writing it as a Darknet data set.

A reader (oxford, voc, coco) looks at everything first and makes a `Plan`; only then is anything written. The
source is never changed: pictures are copied (or hard-linked where that is asked for). Writing the same plan
twice gives the same bytes.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from ..base import files
from ..base.errors import DatasetError
from .datafile import data_text
from .images import check_image
from .labels import VISIBLE
from .limits import MAX_PIXELS

SHOWN = 10


@dataclass
class Picture:
    """One picture of the source.

    Attributes:
        source: where it lies.
        name: its file name in the output.
        size: (width, height) of the file itself.
        boxes: (n, 5) float64 class, x, y, w, h relative to the picture, inside it.
        ignored: the same of objects that are neither asked for nor a mistake to find: difficult ones, crowds.
    """

    source: Path
    name: str
    size: tuple[int, int]
    boxes: np.ndarray
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 5)))


@dataclass
class Plan:
    """What a reader found.

    Attributes:
        pictures: by an id that the lists use.
        lists: list name ("train") -> ids, in order.
        names: class names.
        train, valid, test: which lists the `.data` file names; test: or None.
        skipped: (file, what, why) of every box that is left out.
        broken: (file, why) of every picture or annotation that cannot be used.
        notes: further counts for the table.
    """

    pictures: dict[str, Picture] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    train: str = "train"
    valid: str = "valid"
    test: str | None = None
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter = field(default_factory=Counter)

    def boxes(self, name: str) -> np.ndarray:
        """(n, 5) all boxes of a list."""
        parts = [self.pictures[i].boxes for i in self.lists.get(name, ())]
        return np.concatenate(parts) if parts else np.zeros((0, 5))

    def sizes(self, name: str, size: tuple[int, int], letterbox: bool = False) -> np.ndarray:
        """(n, 2) box widths and heights of a list in pixels of a (height, width) network input.

        Args:
            letterbox: pictures keep their aspect (`letter_box=1` of the cfg), instead of being stretched.
        """
        if not letterbox:
            return self.boxes(name)[:, 3:5] * np.array([size[1], size[0]])
        parts = [np.zeros((0, 2))]
        for picture in (self.pictures[i] for i in self.lists.get(name, ())):
            scale = min(size[1] / picture.size[0], size[0] / picture.size[1])
            parts.append(picture.boxes[:, 3:5] * np.array(picture.size) * scale)
        return np.concatenate(parts)


class FileNames:
    """Gives every picture a file name whose stem is its own, since `a.jpg` and `a.png` would share a label
    file.
    """

    def __init__(self):
        self.taken: set[str] = set()

    def give(self, name: str, prefix: str) -> str:
        """`name`, or `prefix_name` where that is taken.

        Raises:
            DatasetError: a name that no line of a list can hold.
        """
        if name != name.strip() or not name.isprintable():
            raise DatasetError(repr(name[:80]), "is a file name that a list cannot hold", remedy="rename it")
        while PurePosixPath(name).stem.lower() in self.taken:
            name = f"{prefix}_{name}"
        self.taken.add(PurePosixPath(name).stem.lower())
        return name


def image_size(path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the file itself, decoded whole; declared sizes are not trusted.

    Raises:
        DatasetError: no picture, a truncated or a broken one.
    """
    width, height, _ = check_image(path, max_pixels)
    return width, height


def corners_to_row(
    label: int, corners: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[list[float] | str, bool]:
    """A box as a label row, clipped to the picture.

    Args:
        corners: x1, y1, x2, y2 in pixels, 0 at the left and upper border.
        size: (width, height).

    Returns:
        [class, x, y, w, h], or why there is none; and whether the box stuck out.
    """
    if not np.isfinite(corners).all():
        return "a coordinate is no finite number", False
    (x1, y1, x2, y2), (w, h) = corners, size
    if x2 <= x1 or y2 <= y1:
        return "zero or negative width or height", False
    left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h))
    if right <= left or bottom <= top:
        return f"outside of the image ({w} x {h})", False
    row = [label, (left + right) / 2 / w, (top + bottom) / 2 / h, (right - left) / w, (bottom - top) / h]
    if min(float(f"{v:.6f}") for v in row[3:]) <= 0:
        return "smaller than a label file can say", False
    out = max(left - x1, right and x2 - right) / w > VISIBLE or max(top - y1, y2 - bottom) / h > VISIBLE
    return row, out


def add_boxes(
    plan: Plan, where: str, boxes: Iterable[tuple[str, int, tuple]], size: tuple[int, int]
) -> np.ndarray:
    """Rows of all boxes (what, class, corners) that can be used; the others go to `plan.skipped`."""
    rows = []
    for what, label, corners in boxes:
        row, clipped = corners_to_row(label, corners, size)
        if isinstance(row, str):
            plan.skipped.append((where, what, row))
        else:
            rows.append(row)
            plan.notes["boxes clipped to the image"] += clipped
    return np.array(rows, np.float64).reshape(-1, 5)


def refuse_broken(plan: Plan, place, skip: bool) -> None:
    """Raises DatasetError with the first ten if anything is broken and `skip` is off, or if nothing is
    left.
    """
    if plan.broken and not skip:
        shown = " | ".join(f"{name}: {why}" for name, why in plan.broken[:SHOWN])
        more = f" | and {len(plan.broken) - SHOWN} more" if len(plan.broken) > SHOWN else ""
        raise DatasetError(
            place,
            f"{len(plan.broken)} files cannot be used: {shown}{more}",
            remedy="put them right, or leave them out with --skip_broken",
        )
    if not plan.pictures:
        raise DatasetError(place, "no annotated image was found")
    if not sum(len(p.boxes) for p in plan.pictures.values()):
        raise DatasetError(
            place, f"no usable box in {len(plan.pictures)} images", remedy="check --format and --names"
        )


def label_text(boxes: np.ndarray) -> str:
    """The label file of a picture; empty for a picture without boxes."""
    return "".join(f"{int(row[0])} " + " ".join(f"{v:.6f}" for v in row[1:]) + "\n" for row in boxes)


def write(
    plan: Plan, output, name: str, names_path=None, link: bool = False, progress: Callable | None = None
) -> dict[str, str]:
    """Writes images, labels, lists, names and the `.data` file.

    Lists go last, so that an interrupted run leaves none that promises what is not there.

    Args:
        output: folder; the lists name the images below it just as it is written here.
        name: of the `.data` and `.names` files.
        names_path: the names file to refer to; None writes one.
        link: hard-link images to their source instead of copying them, where the file system can.

    Returns:
        What was written: images, labels, each list, names, data -> path.

    Raises:
        FileError: the folder cannot be written to.
    """
    output = Path(output)
    pictures = list(plan.pictures.values())
    try:
        for folder in ("images", "labels"):
            (output / folder).mkdir(parents=True, exist_ok=True)
        for picture in progress(pictures, total=len(pictures), desc="writing") if progress else pictures:
            _put_image(picture.source, output / "images" / picture.name, link)
            _put_text(
                output / "labels" / (PurePosixPath(picture.name).stem + ".txt"), label_text(picture.boxes)
            )
    except OSError as e:
        raise files.FileError(
            e.filename2 or e.filename or output,
            f"cannot be written ({e.strerror or e})",
            remedy="choose another --output, or make space",
        ) from e
    written = {"images": (output / "images").as_posix(), "labels": (output / "labels").as_posix()}
    texts: dict[Path, str] = {}
    for list_name, ids in plan.lists.items():
        path = output / f"{list_name}.txt"
        texts[path] = "".join((output / "images" / plan.pictures[i].name).as_posix() + "\n" for i in ids)
        written[list_name] = path.as_posix()
    if names_path is None:
        names_path = output / f"{name}.names"
        texts[Path(names_path)] = "".join(f"{n}\n" for n in plan.names)
    written["names"] = Path(names_path).as_posix()
    data = output / f"{name}.data"
    difficult = _write_ignored(plan, output)
    if difficult is not None:
        texts[output / "difficult.txt"] = difficult
        written["difficult"] = (output / "difficult.txt").as_posix()
    lists = [written.get(which) for which in (plan.train, plan.valid)]
    test = None if plan.test is None else written.get(plan.test)
    texts[data] = data_text(
        len(plan.names), *lists, written["names"], test=test, difficult=written.get("difficult")
    )
    written["data"] = data.as_posix()
    files.save_all([files.Save(path, text) for path, text in texts.items()])
    return written


def _write_ignored(plan: Plan, output: Path) -> str | None:
    """Writes the labels of ignored boxes to difficult/labels, and gives the list that names them: Darknet's
    `difficult=`, whose pictures are named for the sake of their labels only. None where there are none.
    """
    lines = []
    for ident in plan.lists.get(plan.valid, ()):
        picture = plan.pictures[ident]
        if len(picture.ignored):
            path = output / "difficult" / "labels" / (PurePosixPath(picture.name).stem + ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            _put_text(path, label_text(picture.ignored))
        lines.append((output / "difficult" / "images" / picture.name).as_posix() + "\n")
    return "".join(lines) if any(len(p.ignored) for p in plan.pictures.values()) and lines else None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}.{os.getpid()}.tmp")


def _put_text(path: Path, text: str) -> None:
    """Thousands of labels that a second run would make again: whole or not there, but not synced one by
    one.
    """
    data = text.encode()
    if (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == len(data)
        and path.read_bytes() == data
    ):
        return
    temp = _temporary(path)
    try:
        temp.write_bytes(data)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _put_image(source: Path, path: Path, link: bool) -> None:
    if path.is_file() and not path.is_symlink():
        if os.path.samefile(source, path):
            if link or os.path.realpath(source) == os.path.realpath(path):
                return
        elif filecmp.cmp(source, path, shallow=False):
            return
    temp = _temporary(path)
    try:
        if not (link and _linked(source, temp)):
            shutil.copyfile(source, temp)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def _linked(source: Path, temp: Path) -> bool:
    try:
        os.link(source, temp)
        return True
    except OSError:
        return False  # another file system, or a file of another user
