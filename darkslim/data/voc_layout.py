"""Where a Pascal VOC data set keeps what: the original layout, and those that it is handed around in.

- `Annotations/`, `JPEGImages/` and `ImageSets/Main/*.txt`;
- folders of other names (`annots`, `images`, ...), or pictures and annotations beside each other in one;
- folders `train/`, `valid/`, `test/` that are each such a data set (Roboflow).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..base.errors import DatasetError
from .datafile import read_text
from .folders import Folder, below, holds, split_folders
from .limits import SUFFIXES

ANNOTATIONS = ("annotations", "annotation", "annots", "annot", "xmls", "xml", "labels")
IMAGES = ("jpegimages", "images", "image", "imgs", "img", "jpegs", "pictures")
LISTS = ("train", "val", "trainval", "test")


@dataclass
class Layout:
    """One set of annotations with its pictures.

    Attributes:
        annotations: the folder of `.xml` files.
        pictures: the folder of pictures.
        lists: name -> ids, empty where there are none.
        prefix: what makes its ids differ from those of other parts.
    """

    annotations: Path
    pictures: Folder
    lists: dict[str, list[str]] = field(default_factory=dict)
    prefix: str = ""

    def ids(self) -> list[str]:
        """Every annotation that is there, or that a list names."""
        if self.lists:
            return list(dict.fromkeys(i for ids in self.lists.values() for i in ids))
        return sorted(p.stem for p in self.annotations.iterdir() if p.suffix.lower() == ".xml")


def layouts(root: Path) -> list[Layout]:
    """The parts of a data set: one, or one a split.

    Raises:
        DatasetError: no annotations, no pictures, a list with something else than ids.
    """
    annotations = below(root, ANNOTATIONS, holds((".xml",)))
    if annotations is not None:
        images = below(root, IMAGES, holds(SUFFIXES))
        if images is None:
            raise DatasetError(root, "has no folder of pictures", "JPEGImages or images", "check --input")
        return [Layout(annotations, Folder(images), read_lists(root / "ImageSets" / "Main"))]
    parts = []
    for split, folder in split_folders(root).items():
        for part in layouts(folder):
            ids = part.ids()
            parts.append(Layout(part.annotations, part.pictures, {split: ids}, f"{split}/"))
    if not parts:
        expected = "Annotations, JPEGImages and ImageSets/Main, or .xml files beside pictures"
        raise DatasetError(root, "has no VOC annotations (.xml)", expected, "check --input")
    return parts


def read_lists(folder: Path) -> dict[str, list[str]]:
    """The ids in each of `{train,val,trainval,test}.txt` that is there.

    Raises:
        DatasetError: an id that is no plain name; lists that are all empty.
    """
    lists, there = {}, False
    for name in LISTS:
        path = folder / f"{name}.txt"
        if not path.exists():
            continue
        there, ids = True, []
        for number, line in enumerate(read_text(path, "list of ids", 64 << 20, DatasetError).split("\n"), 1):
            ident = line.strip()
            if ident and (ident in (".", "..") or "/" in ident or "\\" in ident):
                raise DatasetError(f"{path}:{number}", f"{ident[:60]!r} is a path", "an id, such as 000012")
            if ident:
                ids.append(ident)
        if ids:
            lists[name] = ids
    if there and not lists:
        raise DatasetError(folder, "has empty lists only", "one id a line")
    return lists
