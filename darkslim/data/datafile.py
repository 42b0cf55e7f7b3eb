"""Darknet `.data` and `.names` files.

    classes=3
    train=data/bccd/trainval.txt
    valid=data/bccd/test.txt
    names=data/bccd/bccd.names
    backup=checkpoints

Relative paths start from the folder that the command runs in, as in Darknet; the folder of the `.data`
file is never guessed. `read_list` of darkslim/data/listing.py holds to the same base.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..base import files
from ..base.errors import DarkslimError, DataFileError, short

KNOWN = (
    "classes",
    "train",
    "valid",
    "names",
    "backup",
    "test",
    "eval",
    "results",
    "difficult",
    "labels",
    "top",
    "map",
)
OUTPUTS = ("backup", "results")
MAX_CLASSES = 100_000
_LINE = re.compile(r"[^\n]*[^\s][^\n]*")


@dataclass(frozen=True)
class DataConfig:
    """What a `.data` file says.

    Attributes:
        path: the file itself.
        classes: number of classes.
        train, valid, test: list files, None where the file names none.
        names: one name a class.
        names_path: where they were read from, None when they are only numbers.
        difficult: a list whose labels hold the objects of `valid` that count neither as found nor as missed,
            None where the file names none.
        backup: folder for what training writes, None where the file names none.
    """

    path: Path
    classes: int
    train: Path | None
    valid: Path | None
    test: Path | None
    names: list[str]
    names_path: Path | None
    backup: Path | None
    difficult: Path | None = None

    @property
    def reads(self) -> list[Path]:
        """The files that it names for reading."""
        return [
            path
            for path in (self.train, self.valid, self.test, self.names_path, self.difficult)
            if path is not None
        ]

    def list_path(self, key: str) -> Path:
        """The list file under `train`, `valid` or `test`.

        Raises:
            DataFileError: the file does not name one.
        """
        value = getattr(self, key)
        if value is None:
            raise DataFileError(
                self.path, f"has no {key}=", remedy=f"add {key}=FILE, a list of one image path a line"
            )
        return value


def read_text(path, what: str, cap: int, error: type[DarkslimError]) -> str:
    """A text file: UTF-8 with or without a byte order mark, any line ends.

    Raises:
        error: not a regular file, too long, another kind of file, UTF-16, NUL bytes.
    """
    data = files.read_bytes(path, what, cap, error)
    kind = files.sniff(data)
    if kind:
        raise error(path, f"is {kind}", f"a {what}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(path, "is UTF-16", f"a {what} in UTF-8", "save it as UTF-8")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise error(f"{path}:{line}", "has a NUL byte", f"a {what} is plain text")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        raise error(f"{path}:{line}", "is not UTF-8", f"a {what} in UTF-8", "save it as UTF-8") from None


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers. Millions of blank ones cost next to nothing."""
    number, at = 1, 0
    for match in _LINE.finditer(text):
        number += text.count("\n", at, match.start())
        at = match.start()
        yield number, match[0]


def portable(text: str) -> str:
    """A path that may have been written on Windows; backslashes become separators where no file has that very
    name.
    """
    if "\\" not in text or os.sep == "\\" or os.path.lexists(text):
        return text
    return PureWindowsPath(text).as_posix()


def read_names(path, classes: int | None = None) -> list[str]:
    """The class names, one a line.

    Args:
        classes: how many there must be, if that is known.

    Raises:
        DataFileError: no such file, a blank line between names, another number of names than `classes`.
    """
    text = read_text(path, "names file", 16 * files.MIB, DataFileError).rstrip()
    lines = [line.strip() for line in text.split("\n", MAX_CLASSES)] if text else []
    if not lines:
        raise DataFileError(path, "has no names", "one class name a line")
    for number, line in enumerate(lines, 1):
        if not line:
            raise DataFileError(
                f"{path}:{number}",
                "is a blank line between names",
                remedy="remove it: it would count as a class",
            )
    if classes is not None and len(lines) != classes:
        raise DataFileError(path, f"has {len(lines)} names", f"classes={classes}", "make the two agree")
    if len(set(lines)) != len(lines):
        twice = sorted({name for name in lines if lines.count(name) > 1})
        warnings.warn(
            f"{path}: these names stand for more than one class: {', '.join(twice[:5])}", stacklevel=2
        )
    return lines


def read_data(path, allow_outside: bool = False) -> DataConfig:
    """Reads a `.data` file and the names that it points to; the lists themselves are read by the data set.

    Args:
        allow_outside: let outputs (`backup`) lie outside of the current folder by way of `../`.

    Raises:
        DataFileError: with file and line.
    """
    path = Path(path)
    values = _pairs(path)
    if "classes" not in values:
        raise DataFileError(path, "has no classes=", remedy="add classes=N")
    text, line = values["classes"]
    digits = text.lstrip("0")  # else the first digits of a long number would be taken for it
    if not (text.isascii() and digits.isdigit() and len(digits) < 10 and 1 <= int(digits) <= MAX_CLASSES):
        raise DataFileError(
            f"{path}:{line}", f"classes={short(text)}", f"a whole number from 1 to {MAX_CLASSES:,}"
        )
    classes = int(text)
    for key in OUTPUTS:
        if key in values and not allow_outside:
            _check_output(path, key, *values[key])
    where = {
        key: Path(portable(values[key][0])) if key in values else None
        for key in ("train", "valid", "test", "names", "backup", "difficult")
    }
    names = [str(i) for i in range(classes)]
    if where["names"] is not None:
        if not os.path.exists(where["names"]):  # which no name is too long for
            raise DataFileError(
                f"{path}:{values['names'][1]}",
                f"names={short(values['names'][0], 80)}: no such file",
                f"relative paths start from the current folder ({Path.cwd()})",
                "run from the folder it is meant for",
            )
        names = read_names(where["names"], classes)
    return DataConfig(
        path=path,
        classes=classes,
        train=where["train"],
        valid=where["valid"],
        test=where["test"],
        names=names,
        names_path=where["names"],
        backup=where["backup"],
        difficult=where["difficult"],
    )


def _pairs(path: Path) -> dict[str, tuple[str, int]]:
    values: dict[str, tuple[str, int]] = {}
    for number, raw in lines_of(read_text(path, ".data file", files.MIB, DataFileError)):
        line = raw.strip()
        if line[0] in "#;":
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise DataFileError(f"{path}:{number}", f"{line[:60]!r} has no =", "key=value")
        if not key or not value:
            raise DataFileError(
                f"{path}:{number}", f"{line[:60]!r} has no {'value' if key else 'key'}", "key=value"
            )
        if key in values:
            warnings.warn(
                f"{path}:{number}: {key} stands already in line {values[key][1]}; the first one counts",
                stacklevel=3,
            )
            continue
        if key not in KNOWN:
            near = difflib.get_close_matches(key, KNOWN, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            warnings.warn(f"{path}:{number}: unknown key {key}{hint}", stacklevel=3)
        values[key] = (value, number)
    return values


def _check_output(path: Path, key: str, value: str, line: int) -> None:
    """Refuses an output folder that climbs out of the current one; an absolute path without `..` is the
    user's word.
    """
    posix = PureWindowsPath(value).as_posix()
    climbs = ".." in posix.split("/")
    if climbs and (posix.startswith("/") or os.path.normpath(posix).split(os.sep)[0] == ".."):
        raise DataFileError(
            f"{path}:{line}",
            f"{key}={value} leads out of the current folder",
            "an output inside it",
            "change the path, or write an absolute one",
        )


def data_text(classes: int, train, valid, names, backup="checkpoints", test=None, difficult=None) -> str:
    """The text of a `.data` file; paths are written as given, None is left out."""
    pairs = {"classes": classes, "train": train, "valid": valid, "test": test, "names": names}
    pairs |= {"difficult": difficult, "backup": backup}
    return "".join(
        f"{key}={Path(value).as_posix() if key != 'classes' else value}\n"
        for key, value in pairs.items()
        if value is not None
    )
