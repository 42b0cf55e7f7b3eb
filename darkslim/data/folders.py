"""Folders of data sets, whose names and depth nobody agreed on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from ..base.errors import DatasetError
from .limits import SUFFIXES

SPLITS = {"train": "train", "training": "train", "trainval": "trainval", "valid": "val", "val": "val"}
SPLITS |= {"validation": "val", "test": "test", "testing": "test"}
MOST = 20_000_000  # files of one folder


class Folder:
    """The pictures and other files of a folder, by their stems. Letter case of suffixes does not count."""

    def __init__(self, path: Path):
        self.path = path
        self.pictures: dict[str, list[Path]] = {}
        if not path.is_dir():
            return
        for number, entry in enumerate(sorted(path.iterdir())):
            if number >= MOST:
                raise DatasetError(path, f"holds more than {MOST:,} files")
            if entry.suffix.lower() in SUFFIXES:
                self.pictures.setdefault(entry.stem, []).append(entry)

    def picture(self, stem: str, name: str | None = None) -> Path | None:
        """The picture of a stem; of several the one that `name` names, else the first."""
        found = self.pictures.get(stem, ())
        return next((p for p in found if p.name == name), found[0] if found else None)


def below(root: Path, names: Iterable[str], holds: Callable[[Path], bool]) -> Path | None:
    """The first folder of `root` with one of these names (in any letter case), or `root` itself, for which
    `holds` says yes.
    """
    folders = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()} if root.is_dir() else {}
    candidates = [folders[name] for name in names if name in folders] + [root]
    return next((folder for folder in candidates if folder.is_dir() and holds(folder)), None)


def split_folders(root: Path) -> dict[str, Path]:
    """train, val, test -> the folder of that name below `root`, by any of its usual names."""
    found: dict[str, Path] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        name = SPLITS.get(folder.name.lower())
        if name is not None and folder.is_dir():
            found.setdefault(name, folder)
    return found


def holds(suffixes: tuple[str, ...]) -> Callable[[Path], bool]:
    """Whether a folder has a file with one of these suffixes directly in it."""
    return lambda folder: any(p.suffix.lower() in suffixes for p in folder.iterdir())


def inside(name: str, where: str) -> PurePosixPath:
    """A file name that an annotation gives, which must stay in its data set.

    Raises:
        DatasetError: it leads out.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name:
        raise DatasetError(where, f"file_name {name[:60]!r} leads out of the data set")
    return relative
