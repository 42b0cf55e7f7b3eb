"""YOLO as Ultralytics, Roboflow, Label Studio and LabelImg write it: pictures in `images/`, labels in
`labels/`.

Splits come from `data.yaml` (train, val, test: a folder, a list of folders or a file of paths), else from
folders `train/`, `valid/`, `test/` with `images/` below them or below `images/`; without any there is one
list, `train`. Class names come from `data.yaml` (`names`, a list or a dict), else `classes.txt`, `obj.names`
or `_darknet.labels`. Rows of more than five numbers are polygons (segmentation, oriented boxes); their
bounding boxes are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from ..base.errors import DatasetError
from .convert import FileNames, Picture, Plan, image_size, refuse_broken
from .datafile import read_names, read_text
from .folders import Folder, split_folders
from .labels import MAX_BYTES, clip, parse_row
from .limits import MAX_PIXELS, SUFFIXES
from .listing import find_label

YAMLS = ("data.yaml", "data.yml", "dataset.yaml")
NAMES = ("classes.txt", "obj.names", "_darknet.labels")
MAX_YAML = 256 << 10
KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_yolo(
    root,
    names: list[str] | None = None,
    skip_broken: bool = False,
    progress: Callable | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """Reads the whole data set.

    Args:
        root: its folder, or its `.yaml` file.
        names: the classes by number, where the data set has no names of its own.

    Raises:
        DatasetError: no pictures, no names, broken files (unless `skip_broken`), nothing usable.
    """
    root = Path(root)
    path, content = read_yaml(root)
    folder = path.parent if path is not None else root
    plan = Plan(names=_names(folder, path, content, names))
    unique, known = FileNames(), {}
    for split, pictures in _splits(folder, path, content).items():
        plan.lists[split] = []
        for image in progress(pictures, total=len(pictures), desc=split) if progress else pictures:
            if image not in known:
                known[image] = str(image)
                try:
                    size = image_size(image, max_pixels)
                    rows = _rows(plan, Path(find_label(str(image))))
                except DatasetError as e:
                    plan.broken.append((e.place, "; ".join(part for part in (e.found, e.expected) if part)))
                    continue
                name = unique.give(image.name, split)
                plan.notes["pictures renamed, since their names clash"] += name != image.name
                plan.pictures[str(image)] = Picture(image, name, size, rows)
            if str(image) in plan.pictures:
                plan.lists[split].append(str(image))
    plan.valid = next((name for name in ("val", "test") if plan.lists.get(name)), "")
    plan.test = "test" if plan.valid == "val" and plan.lists.get("test") else None
    refuse_broken(plan, root, skip_broken)
    return plan


def read_yaml(root: Path) -> tuple[Path | None, dict]:
    """The `data.yaml` of a data set and what it says; None and nothing where there is none.

    Raises:
        DatasetError: no such folder, or no YAML.
    """
    if root.suffix.lower() in (".yaml", ".yml"):
        path = root
    elif root.is_dir():
        path = next((root / name for name in YAMLS if (root / name).is_file()), None)
        if path is None:
            others = sorted(p for p in root.iterdir() if p.suffix.lower() in (".yaml", ".yml"))
            path = others[0] if len(others) == 1 else None
    else:
        expected = "the folder of the data set, or its data.yaml"
        raise DatasetError(root, "is no folder", expected, "check --input")
    if path is None:
        return None, {}
    text = read_text(path, "data.yaml", MAX_YAML, DatasetError)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        why = " ".join(str(e).split())[:120]
        raise DatasetError(path, f"is no YAML ({why})", "train, val, names") from None
    if not isinstance(content, dict):
        raise DatasetError(path, "holds no keys", "train, val, names")
    return path, content


def _names(folder: Path, path: Path | None, content: dict, given: list[str] | None) -> list[str]:
    """The classes, in the order of their numbers."""
    named = content.get("names")
    if isinstance(named, dict) and all(isinstance(k, int) for k in named):
        if sorted(named) != list(range(len(named))):
            raise DatasetError(path, "numbers classes with gaps", f"names from 0 to {len(named) - 1}")
        named = [named[i] for i in range(len(named))]
    if isinstance(named, list) and named:
        if not all(isinstance(n, (str, int, float)) for n in named):
            raise DatasetError(path, "has a name that is no text", "names: [a, b, c]")
        texts = [" ".join(str(n).split()) for n in named]
        if given is not None and given != texts:
            raise DatasetError(path, f"names {texts[:5]}", f"{given[:5]} of --names", "leave --names out")
        count = content.get("nc", len(texts))
        if count != len(texts):
            raise DatasetError(path, f"nc: {count!r:.20}, and {len(texts)} names", "one number of classes")
        if not all(texts):
            raise DatasetError(path, "has an empty name", "names: [a, b, c]")
        return texts
    if named:
        raise DatasetError(path, "has names that are no list", "names: [a, b, c]")
    if given is not None:
        return given
    for name in NAMES:
        if (folder / name).is_file():
            return read_names(folder / name)
    raise DatasetError(
        path or folder, "names no classes", f"names: in data.yaml, or {NAMES[0]}", "or give --names FILE"
    )


def _splits(folder: Path, path: Path | None, content: dict) -> dict[str, list[Path]]:
    """Split -> its pictures."""
    splits: dict[str, list[Path]] = {}
    for key, name in KEYS.items():
        if content.get(key) and name not in splits:
            base = content.get("path")
            base = base if isinstance(base, str) else ""
            splits[name] = _pictures(folder, base, content[key], f"{path}: {key}")
    if splits:
        return splits
    for name, place in (split_folders(folder) | split_folders(folder / "images")).items():
        splits[name] = _all_pictures(place / "images" if (place / "images").is_dir() else place)
    splits = {name: found for name, found in splits.items() if found}
    if splits:
        return splits
    found = _all_pictures(folder / "images" if (folder / "images").is_dir() else folder)
    if not found:
        expected = "images/ and labels/, or a data.yaml"
        raise DatasetError(folder, "has no pictures in images/", expected, "check --input")
    return {"train": found}


def _pictures(folder: Path, base: str, entry, where: str) -> list[Path]:
    """What one entry of data.yaml means: a folder, a file of paths, or a list of these.

    Such files are moved about, and their paths stay as they were: they are looked for below `path:`, beside
    the file, and (Roboflow) without the `../` that leads out of the folder.
    """
    if isinstance(entry, list):
        return [p for part in entry for p in _pictures(folder, base, part, where)]
    if not isinstance(entry, str):
        raise DatasetError(where, f"{str(entry)[:40]!r} is no path", "a folder of pictures")
    tail = Path(*[part for part in Path(entry).parts if part not in ("..", "/")] or ["."])
    tries = [folder / base / entry, folder / entry, folder / tail, Path(base) / entry, folder / tail.name]
    for place in tries:
        if place.is_dir():
            pictures = _all_pictures(place / "images" if (place / "images").is_dir() else place)
            if pictures:
                return pictures
        elif place.is_file():
            return _listed(place, folder)
    raise DatasetError(where, f"{entry[:80]} is not there", f"a folder of pictures below {folder}")


def _all_pictures(folder: Path) -> list[Path]:
    return sorted(p for found in Folder(folder).pictures.values() for p in found)


def _listed(path: Path, folder: Path) -> list[Path]:
    """The pictures of a file of paths, relative to that file or to the data set."""
    if path.suffix.lower() in SUFFIXES:
        raise DatasetError(path, "is a picture", "a folder, or a file of paths")
    found = []
    for number, line in enumerate(read_text(path, "list of images", 512 << 20, DatasetError).split("\n"), 1):
        if line.strip():
            places = [base / line.strip() for base in (path.parent, folder, Path())]
            place = next((p for p in places if p.is_file()), None)
            if place is None:
                raise DatasetError(f"{path}:{number}", f"{line.strip()[:80]} is not there", "a picture")
            found.append(place)
    return found


def _rows(plan: Plan, path: Path) -> np.ndarray:
    """(n, 5) boxes of a label file; what cannot be used is noted."""
    if not path.exists():
        plan.notes["pictures without a label file (background)"] += 1
        return np.zeros((0, 5))
    rows: dict[tuple, None] = {}
    text = read_text(path, "label file", MAX_BYTES, DatasetError)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = parse_row(_boxed(plan, line), len(plan.names))
        if isinstance(row, str):
            plan.skipped.append((f"{path}:{number}", "a row", row))
        else:
            plan.notes["rows that repeat another one"] += row in rows
            rows[row] = None
    if not rows:
        return np.zeros((0, 5))
    result, clipped = clip(np.array(list(rows), np.float64))
    plan.notes["boxes clipped to the image"] += clipped
    return result.astype(np.float64)


def _boxed(plan: Plan, line: str) -> str:
    """A row as it is, or a polygon as the row of its bounding box."""
    words = line.split()
    if len(words) < 7 or len(words) % 2 == 0:
        return line
    try:
        points = np.array([float(word) for word in words[1:]]).reshape(-1, 2)
    except ValueError:
        return line
    low, high = points.min(0), points.max(0)
    plan.notes["polygons of which the bounding box was taken"] += 1
    return " ".join([words[0], *(repr(float(v)) for v in (*((low + high) / 2), *(high - low)))])
