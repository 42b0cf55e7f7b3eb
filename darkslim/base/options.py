"""Settings: frozen dataclasses whose fields know how they are read, what they may be, and what they mean.

    @dataclass(frozen=True)
    class Settings(Options):
        epochs: int = option(100, count(1), "passes over the training list")

There is one place for a setting's default, bounds and help: commands make flags of the fields, recipes read
them from text, and whoever builds settings in Python gets the same checks and the same messages. No torch, no
argparse.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import RequestError, short

Reader = Callable[[Any], Any]  # text or a typed value -> the value; ValueError(what is wrong) if it cannot be


@dataclass(frozen=True)
class Option:
    """What a field of settings knows beside its default.

    Attributes:
        read: checks a value, and reads it from text.
        help: one line.
        flags: how commands call it, the first one in messages.
        metavar: what stands for the value in help texts.
        group: options of one group exclude each other; its title.
        reads: whether the value names a file that is read, and must therefore not be written.
    """

    read: Reader
    help: str
    flags: tuple[str, ...]
    metavar: str | None = None
    group: str | None = None
    reads: bool = False


def option(
    default,
    read: Reader,
    help: str,
    *flags: str,
    metavar: str | None = None,
    group: str | None = None,
    reads: bool = False,
):
    """A field of settings. Without `flags` its flag is `--name`."""
    return field(default=default, metadata={"option": Option(read, help, flags, metavar, group, reads)})


class Options:
    """The base of settings: every field is checked when they are made.

    Raises:
        RequestError: a value that its option refuses, or two of a group; names the flag.
    """

    def __post_init__(self):
        given: dict[str, str] = {}
        optional = {f.name for f in dataclasses.fields(self) if "None" in str(f.type)}
        for name, its in options(type(self)).items():
            value, default = getattr(self, name), default_of(type(self), name)
            if value is None and (default is None or name in optional):
                continue
            try:
                object.__setattr__(self, name, its.read(value))
            except ValueError as e:
                raise RequestError(flag(type(self), name), str(e)) from None
            if its.group and value != default:
                if its.group in given:
                    raise RequestError(
                        flag(type(self), name),
                        f"given with {given[its.group]}",
                        remedy="leave one of them out",
                    )
                given[its.group] = flag(type(self), name)

    def replace(self, **changes):
        """The same settings but for some."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """Every setting by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def reads(self) -> dict[str, Any]:
        """flag -> path of every file that the settings name for reading."""
        return {
            flag(type(self), name): getattr(self, name)
            for name, its in options(type(self)).items()
            if its.reads and getattr(self, name) is not None
        }


def options(kind: type) -> dict[str, Option]:
    """Name -> option of every field of a class of settings."""
    return {f.name: f.metadata["option"] for f in fields(kind) if "option" in f.metadata}


def default_of(kind: type, name: str) -> Any:
    return next(f.default for f in fields(kind) if f.name == name)


def flag(kind: type, name: str) -> str:
    """The flag of a field, as messages call it: its first long one."""
    flags = options(kind)[name].flags
    return next((f for f in flags if f.startswith("--")), f"--{name}")


def read_values(kind: type, texts: Mapping[str, str], place: str) -> dict[str, Any]:
    """Typed values of settings given as texts by their names.

    Args:
        place: where they stand, for messages.

    Raises:
        RequestError: a name that is no setting, with the nearest that is; a value that cannot be.
    """
    known, values = options(kind), {}
    for name, text in texts.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "one of " + ", ".join(known)
            raise RequestError(place, f"{short(name)} is no setting", hint)
        try:
            values[name] = known[name].read(text)
        except ValueError as e:
            raise RequestError(place, f"{name}: {e}") from None
    return values


# ------------------------------------------------------------------------------------------------------------
# --- readers


def fraction(low: float = 0.0, high: float = 1.0) -> Reader:
    """A number in [low, high]; NaN is refused."""

    def read(value) -> float:
        try:
            number = (
                float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
            )
        except ValueError:
            number = None
        if number is None:
            raise ValueError(f"{value!r} is no number")
        if not low <= number <= high:
            raise ValueError(f"{value} is outside {low:g} to {high:g}")
        return number

    return read


def or_word(number: Reader, word: str) -> Reader:
    """What another reader reads, or a word."""

    def read(value):
        return word if value == word else number(value)

    return read


def count(low: int = 0, high: int = 2**31) -> Reader:
    """A whole number in [low, high]."""

    def read(value) -> int:
        try:
            number = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None:
            raise ValueError(f"{value!r} is no whole number")
        if not low <= number <= high:
            raise ValueError(f"{value} is outside {low} to {high}")
        return number

    return read


def quantity(**units: float) -> Reader:
    """(value, absolute): `0.25` is a share, (0.25, False); `2.5M` is a number of units, (2.5e6, True).

    Args:
        units: suffix -> factor. A number above 1 without a suffix is taken as it is.
    """
    known = ", ".join(units)

    def read(value) -> tuple[float, bool]:
        if isinstance(value, (tuple, list)) and len(value) == 2:
            number, absolute = float(value[0]), bool(value[1])
            if not 0 < number < math.inf:
                raise ValueError(f"{value[0]} is not a finite number above 0")
            return number, absolute
        text = str(value)
        suffix = max((u for u in units if text.endswith(u)), key=len, default="")
        try:
            number = float(text.removesuffix(suffix))
        except ValueError:
            raise ValueError(f"{text!r} is neither a share nor a number with one of {known}") from None
        if not 0 < number < math.inf:
            raise ValueError(f"{text} is not a finite number above 0")
        if suffix or number > 1:
            return number * units.get(suffix, 1.0), True
        return number, False

    return read


def choice(*names: str) -> Reader:
    """One of some names."""

    def read(value) -> str:
        if value not in names:
            near = difflib.get_close_matches(str(value), names, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"{short(str(value))} is none of {', '.join(names)}{hint}")
        return value

    read.choices = names
    return read


def switch(value) -> bool:
    """On or off."""
    known = {
        "on": True,
        "yes": True,
        "true": True,
        "1": True,
        "off": False,
        "no": False,
        "false": False,
        "0": False,
    }
    if isinstance(value, bool):
        return value
    if str(value).lower() not in known:
        raise ValueError(f"{short(str(value))} is neither on nor off")
    return known[str(value).lower()]


def text(value) -> str:
    """Any text that is not empty, or a path."""
    if not str(value):
        raise ValueError("is empty")
    return str(value)


def several(one: Reader) -> Reader:
    """Any number of values of one kind: a tuple, or a text with commas or blanks between them."""

    def read(values) -> tuple:
        parts = values.replace(",", " ").split() if isinstance(values, str) else list(values)
        return tuple(one(part) for part in parts)

    read.one = one
    return read
