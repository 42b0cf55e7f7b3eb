"""The Oxford hand data set (Mittal, Zisserman, Torr: Hand detection using multiple proposals, BMVC 2011).

    hand_dataset/training_dataset/training_data/images/*.jpg
                                               annotations/*.mat
    hand_dataset/validation_dataset/validation_data/...
    hand_dataset/test_dataset/test_data/...

A `.mat` file holds `boxes`, a 1 x n cell array of structs with the corners a, b, c, d of a rotated box, each
1 x 2 [y x]. The coordinates are MATLAB's: the first pixel has its centre on 1, so that the border of the
picture is at 0.5, which is subtracted. The box is the smallest upright one around the corners, clipped to the
picture. Training and validation become `train.txt`, test becomes `valid.txt`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..base import files
from ..base.errors import DatasetError
from .convert import FileNames, Picture, Plan, add_boxes, image_size, refuse_broken
from .limits import MAX_PIXELS

SPLITS = {"training": "train", "validation": "train", "test": "valid"}
CORNERS = "abcd"
BORDER = 0.5
MAX_MAT = 4 << 20
MAX_UNPACKED = 64 << 20
COMPRESSED = 15  # miCOMPRESSED, MAT-file format, table 1-1


def split_folder(root: Path, split: str) -> Path:
    """Where the pictures and annotations of a split lie."""
    return root / f"{split}_dataset" / f"{split}_data"


def read_mat(path) -> list[np.ndarray]:
    """The rotated boxes of an annotation.

    Returns:
        One (4, 2) array of x, y a box, with 0 at the left and upper border of the picture.

    Raises:
        DatasetError: not such a file.
    """
    from scipy.io import loadmat

    data = files.read_bytes(path, "annotation (.mat)", MAX_MAT, DatasetError)
    _refuse_bomb(path, data)
    try:
        content = loadmat(io.BytesIO(data), variable_names=["boxes"], struct_as_record=True)
    except Exception as e:  # the reader was not made for broken files and raises whatever it trips over
        raise DatasetError(
            path, f"this annotation cannot be read ({str(e)[:80] or type(e).__name__})", "a MATLAB 5 file"
        ) from None
    if "boxes" not in content:
        raise DatasetError(path, "has no variable `boxes`", "the annotation of an Oxford hand picture")
    try:
        return [_quad(cell) for cell in np.asarray(content["boxes"]).ravel() if np.size(cell)]
    except (ValueError, TypeError, KeyError, IndexError) as e:
        raise DatasetError(path, f"a box has no corners a, b, c, d of two numbers ({str(e)[:80]})") from None


def _quad(cell) -> np.ndarray:
    while isinstance(cell, np.ndarray) and cell.dtype == object and cell.size == 1:
        cell = cell.ravel()[0]
    if not isinstance(cell, (np.ndarray, np.void)) or cell.dtype.names is None:
        raise ValueError("a cell is no struct")
    box = cell.ravel()[0] if isinstance(cell, np.ndarray) else cell
    corners = [np.asarray(box[name], dtype=np.float64).ravel() for name in CORNERS]
    if any(len(corner) != 2 for corner in corners):
        raise ValueError("a corner has not two numbers")
    return np.array(corners)[:, ::-1] - BORDER


def _refuse_bomb(path, data: bytes) -> None:
    """Walks the compressed elements of a MATLAB 5 file and unpacks each no further than the limit."""
    order = "<" if data[126:128] == b"IM" else ">"
    at, total = 128, 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind == COMPRESSED:
            try:
                total += len(zlib.decompressobj().decompress(data[at + 8 : at + 8 + size], MAX_UNPACKED + 1))
            except zlib.error as e:
                raise DatasetError(path, f"this annotation is damaged ({e})") from None
            if total > MAX_UNPACKED:
                raise DatasetError(
                    path, f"unpacks to more than {MAX_UNPACKED:,} bytes", "the annotation of one picture"
                )
        at += 8 + size


def read_oxford(
    root,
    names: list[str] | None = None,
    skip_broken: bool = False,
    progress: Callable | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """Reads the whole data set.

    Args:
        root: the folder `hand_dataset`.
        names: the one class name; "hand" if None.

    Raises:
        DatasetError: no such folders, broken files (unless `skip_broken`), nothing usable.
    """
    root = Path(root)
    names = names or ["hand"]
    if len(names) != 1:
        raise DatasetError(root, f"{len(names)} names were given", "one: the data set has one class")
    plan = Plan(names=names, lists={"train": [], "valid": []})
    for split in SPLITS:
        folder = split_folder(root, split)
        if not (folder / "annotations").is_dir() or not (folder / "images").is_dir():
            if split == "validation" and root.is_dir():
                continue  # its pictures only add to the training set
            raise DatasetError(
                folder,
                "has no folders images and annotations",
                "the layout of the Oxford hand data set",
                "python converter.py --download, --generate N, or --input DIR",
            )
    work = [
        (split, path)
        for split in SPLITS
        for path in sorted((split_folder(root, split) / "annotations").glob("*.mat"))
    ]
    unique = FileNames()
    for split, path in progress(work, total=len(work), desc="reading") if progress else work:
        image = _image_of(path)
        try:
            if image is None:
                raise DatasetError(
                    path, "its image is missing", f"{path.parent.parent / 'images' / path.stem}.jpg"
                )
            size = image_size(image, max_pixels)
            quads = read_mat(path)
        except DatasetError as e:
            plan.broken.append((e.place, "; ".join(part for part in (e.found, e.expected) if part)))
            continue
        boxes = [(f"box {i}", 0, (*quad.min(0), *quad.max(0))) for i, quad in enumerate(quads, 1)]
        ident = f"{split}/{path.stem}"
        plan.pictures[ident] = Picture(
            image, unique.give(image.name, split), size, add_boxes(plan, str(path), boxes, size)
        )
        plan.lists[SPLITS[split]].append(ident)
        plan.notes[f"{split} images"] += 1
    for split in SPLITS:
        folder = split_folder(root, split)
        annotated = {path.stem for s, path in work if s == split}
        missing = [p for p in sorted((folder / "images").glob("*.jpg")) if p.stem not in annotated]
        plan.notes["images without annotation, left out"] += len(missing)
    refuse_broken(plan, root, skip_broken)
    return plan


def _image_of(annotation: Path) -> Path | None:
    folder = annotation.parent.parent / "images"
    return next(
        (p for ext in (".jpg", ".jpeg", ".JPG", ".png") if (p := folder / (annotation.stem + ext)).exists()),
        None,
    )
