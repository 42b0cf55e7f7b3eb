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

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..base import files
from ..base.errors import DatasetError
from . import matfile
from .convert import FileNames, Picture, Plan, add_boxes, image_size, refuse_broken
from .limits import MAX_PIXELS

SPLITS = {"training": "train", "validation": "train", "test": "valid"}
CORNERS = "abcd"
BORDER = 0.5
MAX_MAT = 4 << 20


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
    data = files.read_bytes(path, "annotation (.mat)", MAX_MAT, DatasetError)
    try:
        cells = matfile.read_variable(data, "boxes")
    except KeyError:
        raise DatasetError(
            path, "has no variable `boxes`", "the annotation of an Oxford hand picture"
        ) from None
    except matfile.MatError as e:
        raise DatasetError(path, f"this annotation cannot be read: {e}", "a MATLAB 5 file") from None
    try:
        if not isinstance(cells, list):
            raise ValueError("`boxes` is no cell array")
        return [_quad(cell) for cell in cells if not isinstance(cell, (list, np.ndarray)) or len(cell)]
    except (ValueError, KeyError) as e:
        raise DatasetError(path, f"a box has no corners a, b, c, d of two numbers ({str(e)[:80]})") from None


def _quad(cell: matfile.Value) -> np.ndarray:
    while isinstance(cell, list) and len(cell) == 1 and isinstance(cell[0], list):
        cell = cell[0]  # a cell within a cell
    box = cell if isinstance(cell, dict) else cell[0] if isinstance(cell, list) and cell else None
    if not isinstance(box, dict):
        raise ValueError("a cell is no struct")
    corners = [box[name] for name in CORNERS]
    if any(not isinstance(corner, np.ndarray) or len(corner) != 2 for corner in corners):
        raise ValueError("a corner has not two numbers")
    return np.array(corners)[:, ::-1] - BORDER


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
