"""Pascal VOC: annotations, pictures and lists, wherever voc_layout.py finds them.

Each list that is there becomes a list of the same name. With a list `test` the `.data` file trains on
`trainval` (else `train`) and validates on `test`; without, it trains on `train` and validates on `val`.
Coordinates are 1-based and inclusive, so that a box covers xmin - 1 to xmax. Objects marked difficult are
left out of the labels, as Darknet's voc_label.py leaves them out, and go to `difficult=` of the `.data` file.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat

from ..base import files
from ..base.errors import DatasetError
from .convert import FileNames, Picture, Plan, add_boxes, image_size, refuse_broken
from .limits import MAX_PIXELS
from .voc_layout import Layout, layouts

MAX_XML = 4 << 20
EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_xml(path) -> ET.Element:
    """The root of an annotation.

    Raises:
        DatasetError: no XML, too large, or a document type, which is where entities come from and which VOC
            does not have.
    """
    data = files.read_bytes(path, "annotation (.xml)", MAX_XML, DatasetError)

    def refuse(*_):
        raise DatasetError(path, "has a document type (<!DOCTYPE)", "a plain annotation", "remove it")

    try:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = refuse
        parser.Parse(data, True)
        root = ET.fromstring(data)
    except (expat.ExpatError, ET.ParseError, ValueError, LookupError, RecursionError) as e:
        raise DatasetError(path, f"is no XML ({e})", "a VOC annotation") from None
    if root.tag != "annotation":
        raise DatasetError(path, f"its root is <{root.tag[:40]}>", "<annotation>")
    return root


def read_objects(path) -> tuple[list[tuple[str, bool, tuple[float, ...] | str]], tuple[int, int] | None]:
    """The objects of an annotation.

    Returns:
        (name, difficult, corners x1, y1, x2, y2 in pixels from 0, or why there are none); the declared
        (width, height).
    """
    root = read_xml(path)
    objects = []
    for element in root.iter("object"):
        name = " ".join((element.findtext("name") or "").split())
        difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
        try:
            x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{edge}") or "nothing") for edge in EDGES)
        except ValueError:
            objects.append((name, difficult, "a coordinate is no number"))
            continue
        # equal edges would be one pixel wide by the letter; in real data sets they are slips of the mouse
        corners = (x1 - 1, y1 - 1, x2, y2) if x2 > x1 and y2 > y1 else "zero or negative width or height"
        objects.append((name, difficult, corners))
    try:
        declared = (int(root.findtext("size/width") or 0), int(root.findtext("size/height") or 0))
    except ValueError:
        declared = None
    return objects, declared


def read_voc(
    root,
    names: list[str] | None = None,
    skip_broken: bool = False,
    keep_difficult: bool = False,
    progress: Callable | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """Reads the whole data set.

    Args:
        names: the classes to keep, in order; all that occur, sorted, if None.

    Raises:
        DatasetError: no such folders, broken files (unless `skip_broken`), nothing usable.
    """
    root, plan, parsed, lists = Path(root), Plan(), {}, {}
    for part in layouts(root):
        ids = part.ids()
        for ident in progress(ids, total=len(ids), desc="reading") if progress else ids:
            try:
                parsed[part.prefix + ident] = _read_one(part, ident, max_pixels)
            except DatasetError as e:
                plan.broken.append((e.place, "; ".join(part for part in (e.found, e.expected) if part)))
        for name, some in (part.lists or {"train": ids}).items():
            lists.setdefault(name, []).extend(part.prefix + ident for ident in some)
    plan.names = names or sorted(
        {name for *_, objects, _ in parsed.values() for name, _, _ in objects if name}
    )
    unique = FileNames()
    for ident in sorted(parsed):
        path, image, size, objects, declared = parsed[ident]
        plan.notes["images whose declared size is wrong"] += declared not in (None, (0, 0), size)
        name = unique.give(image.name, ident.split("/")[0] if "/" in ident else "voc")
        plan.notes["pictures renamed, since their names clash"] += name != image.name
        boxes, hard = _usable(plan, path, objects, keep_difficult)
        rows, ignored = (add_boxes(plan, str(path), some, size) for some in (boxes, hard))
        plan.pictures[ident] = Picture(image, name, size, rows, ignored)
    plan.lists = {name: [i for i in ids if i in plan.pictures] for name, ids in lists.items()}
    plan.train, plan.valid = _roles(lists)
    refuse_broken(plan, root, skip_broken)
    return plan


def _roles(lists: dict) -> tuple[str, str]:
    """Which list trains and which validates: what validates is no part of what trains."""
    if "test" in lists:
        return "trainval" if "trainval" in lists else "train", "test"
    if "train" in lists and "val" in lists:
        return "train", "val"
    return "train" if "train" in lists else "trainval", ""  # nothing is left to validate on


def _read_one(part: Layout, ident: str, max_pixels: int) -> tuple:
    """annotation, image, its size, objects, declared size."""
    path = part.annotations / f"{ident}.xml"
    image = part.pictures.picture(ident)
    if image is None:
        raise DatasetError(part.pictures.path / ident, "the image is missing")
    return path, image, image_size(image, max_pixels), *read_objects(path)


def _usable(plan: Plan, path: Path, objects: list, keep_difficult: bool) -> tuple[list, list]:
    """What to learn, and what counts neither as found nor as missed: (what, class, corners) each."""
    labels = {name: i for i, name in enumerate(plan.names)}
    boxes, hard = [], []
    for number, (name, difficult, corners) in enumerate(objects, 1):
        what = f"object {number} {name}"
        if isinstance(corners, str):
            plan.skipped.append((str(path), what, corners))
        elif name not in labels:
            plan.skipped.append((str(path), what, "its class is not among the names"))
        elif difficult and not keep_difficult:
            plan.skipped.append((str(path), what, "marked difficult"))
            hard.append((what, labels[name], corners))
        else:
            boxes.append((what, labels[name], corners))
    return boxes, hard
