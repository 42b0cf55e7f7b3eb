"""COCO: `annotations/instances_SPLIT.json`, pictures in `SPLIT/`, `images/SPLIT/`, `images/`; or a JSON file
beside its pictures, one for all or one a split.

Each file becomes the list `SPLIT.txt`. The `.data` file trains on the first split whose
name starts with "train" and validates on the first that starts with "val" (else "test"). Category ids, which
have gaps, become 0, 1, 2, ... in the order of the ids. `bbox` is x, y, width, height in pixels from 0. Crowds
(`iscrowd`) are left out of the labels, and go to `difficult=` of the `.data` file.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from ..base import files
from ..base.errors import DatasetError
from .convert import FileNames, Picture, Plan, add_boxes, image_size, refuse_broken
from .folders import SPLITS, inside, split_folders
from .limits import MAX_PIXELS

MAX_JSON = 2 << 30


def read_json(path) -> dict:
    """One annotation file, its three lists checked for their form.

    Raises:
        DatasetError: no JSON, or not COCO's.
    """
    data = files.read_bytes(path, "annotation (.json)", MAX_JSON, DatasetError)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise DatasetError(path, f"is no JSON ({str(e)[:80]})", "COCO annotations") from None
    for key, needs in (
        ("images", ("id", "file_name")),
        ("annotations", ("image_id", "category_id")),
        ("categories", ("id", "name")),
    ):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DatasetError(path, f"has no list {key}", "images, annotations and categories")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or any(not isinstance(entry.get(n), (int, str)) for n in needs):
                raise DatasetError(path, f"{key}[{number}] lacks {' or '.join(needs)}", "COCO annotations")
    return content


def read_coco(
    root,
    names: list[str] | None = None,
    skip_broken: bool = False,
    progress: Callable | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """Reads every split below `root`, or the one JSON file that `root` is.

    Args:
        names: the classes to keep, in order; all categories in the order of their ids if None.

    Raises:
        DatasetError: no annotations, broken files (unless `skip_broken`), nothing usable.
    """
    root = Path(root)
    contents = {split: (path, read_json(path)) for split, path in annotations(root).items()}
    categories = _categories(contents)
    plan = Plan(names=names or [categories[i] for i in sorted(categories)])
    labels = {name: i for i, name in enumerate(plan.names)}
    unique = FileNames()
    for split, (path, content) in contents.items():
        plan.lists[split] = []
        numbers = {i: labels.get(name) for i, name in categories.items()}
        boxes, crowds, problems = _boxes(plan, path, content, numbers)
        entries = sorted(content["images"], key=lambda e: (isinstance(e["id"], str), e["id"]))
        for entry in progress(entries, total=len(entries), desc=split) if progress else entries:
            ident, where = f"{split}/{entry['id']}", f"{path}: image {entry['id']}"
            try:
                image = _find(root, path, split, str(entry["file_name"]), where)
                size = image_size(image, max_pixels)
            except DatasetError as e:
                plan.broken.append((e.place, e.found))
                continue
            plan.notes["images whose declared size is wrong"] += (
                entry.get("width", size[0]),
                entry.get("height", size[1]),
            ) != size
            rows = add_boxes(plan, where, boxes.get(entry["id"], ()), size)
            name = unique.give(image.name, split)
            plan.notes["pictures renamed, since their names clash"] += name != image.name
            ignored = add_boxes(plan, where, crowds.get(entry["id"], ()), size)
            plan.pictures[ident] = Picture(image, name, size, rows, ignored)
            plan.lists[split].append(ident)
        known = {entry["id"] for entry in content["images"]}
        plan.skipped += [
            (str(path), what, "its image is not in the list of images")
            for ident, found in boxes.items()
            if ident not in known
            for what, *_ in found
        ]
        plan.skipped += problems
    plan.train = next((s for s in contents if s.startswith("train")), next(iter(contents)))
    evaluated = [s for start in ("val", "test") for s in contents if s.startswith(start)]
    plan.valid = evaluated[0] if evaluated else ""
    plan.test = next((s for s in evaluated[1:] if s.startswith("test")), None)
    if plan.train == plan.valid:
        plan.train, plan.valid = plan.valid, ""
    refuse_broken(plan, root, skip_broken)
    return plan


def _categories(contents: dict) -> dict:
    categories: dict = {}
    for path, content in contents.values():
        for entry in content["categories"]:
            known = categories.setdefault(entry["id"], _name(entry))
            if known != _name(entry):
                raise DatasetError(
                    path,
                    f"category {entry['id']} is {entry['name']!r}, but {known!r} in another split",
                    "one name an id",
                )
    if len({type(i) for i in categories}) > 1:
        raise DatasetError(next(iter(contents.values()))[0], "category ids are numbers and texts", "numbers")
    return categories


def _name(category: dict) -> str:
    return " ".join(str(category["name"]).split())


def _boxes(plan: Plan, path: Path, content: dict, labels: dict) -> tuple[dict, dict, list]:
    """Image id -> [(what, class, corners)] of objects and of crowds, and (file, what, why) of what cannot be
    used.
    """
    boxes, crowds, problems = defaultdict(list), defaultdict(list), []
    for number, entry in enumerate(content["annotations"]):
        what, bbox = f"annotation {entry.get('id', number)}", entry.get("bbox")
        crowd = bool(entry.get("iscrowd"))
        plan.notes["crowds left out"] += crowd
        if labels.get(entry["category_id"]) is None:
            problems.append((str(path), what, "its category is not among the names"))
        elif (
            not isinstance(bbox, list)
            or len(bbox) != 4
            or not all(isinstance(v, (int, float)) and abs(v) < 1e12 for v in bbox)
        ):
            problems.append((str(path), what, "bbox is not four numbers"))
        else:
            x, y, w, h = (float(v) for v in bbox)
            to = crowds if crowd else boxes
            to[entry["image_id"]].append((what, labels[entry["category_id"]], (x, y, x + w, y + h)))
    return boxes, crowds, problems


def annotations(root: Path) -> dict[str, Path]:
    """Split -> annotation file: `annotations/instances_SPLIT.json`, one `*.json` a folder (Roboflow's
    `train/_annotations.coco.json`), or `.json` files beside their pictures or in `annotations/`.

    Raises:
        DatasetError: there is none.
    """
    if root.is_file():
        return {_split(root, root.parent): root}
    paths = sorted((root / "annotations").glob("instances_*.json"))
    if not paths:
        parts = {name: sorted(folder.glob("*.json")) for name, folder in split_folders(root).items()}
        if any(parts.values()):
            return {name: found[0] for name, found in parts.items() if found}
        paths = sorted((root / "annotations").glob("*.json")) or sorted(root.glob("*.json"))
    if not paths:
        expected = "annotations/instances_train2017.json, train/_annotations.coco.json, or a .json file"
        raise DatasetError(root, "has no annotations", expected, "check --input")
    return {_split(path, root): path for path in paths}


def _split(path: Path, root: Path) -> str:
    """The split that an annotation file stands for; `train` where its name says nothing of one."""
    name = path.stem.removeprefix("instances_")
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word in SPLITS]
    if name.startswith(("train", "val", "test")):
        return name
    if words:
        return SPLITS[words[0]]
    return SPLITS.get(path.parent.name.lower(), name if path.stem != name else "train")


def _find(root: Path, path: Path, split: str, name: str, where: str) -> Path:
    """The picture of an entry, in the usual places around its annotation file."""
    relative = inside(name, where)
    above = root if root.is_dir() else path.parent.parent
    folders = [above / split, above / "images" / split, above / "images", above]
    folders = list(dict.fromkeys([*folders, path.parent, path.parent / "images"]))
    found = next((folder / relative for folder in folders if (folder / relative).is_file()), None)
    if found is None:
        raise DatasetError(where, f"{name[:80]} is missing; looked in {', '.join(str(f) for f in folders)}")
    return found
