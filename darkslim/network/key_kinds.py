"""How the value of a key is read: whole numbers, numbers, lists, words, each within its bounds.

A reader takes the text behind the equals sign and gives the value, or raises ValueError with what was
expected.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = (
    "linear",
    "leaky",
    "relu",
    "relu6",
    "logistic",
    "loggy",
    "tanh",
    "hardtan",
    "elu",
    "selu",
    "gelu",
    "swish",
    "mish",
)
OTHER_NAMES = {"silu": "swish"}  # names that other programs give them
OTHER_FUNCTIONS = (  # what is no misspelling of one of ours
    "h_swish hswish hard_swish hardswish hard_mish hardmish h_sigmoid hsigmoid hard_sigmoid hardsigmoid "
    "normalize_channels normalize_channels_softmax normalize_channels_softmax_maxval relie ramp plse stair "
    "lhtan revleaky prelu rrelu celu softplus softsign glu silu6"
).split()


@dataclass(frozen=True)
class Key:
    """How one key is read: `read(text)` raises ValueError(what was expected)."""

    read: Callable[[str], Any]
    default: Any = None
    required: bool = False


_DIGITS = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII
)  # Python's float() also takes 1_2, nan and other scripts
MAX_VALUES = 1024


def _parse(text: str) -> float:
    if not _DIGITS.fullmatch(text):
        raise ValueError
    return float(text)


def whole(low: int | None = None, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A reader of whole numbers, also of those that are written with a point (2.0)."""
    expected = "a whole number" + (f" of at least {low}" if low is not None else "")

    def read(text: str) -> int:
        try:
            value = _parse(text)
        except ValueError:
            raise ValueError(expected) from None
        if "e" in text.lower() or not math.isfinite(value) or value != int(value) or abs(value) > 2**53:
            raise ValueError(expected)
        if (low is not None and value < low) or value > high:
            raise ValueError(expected + (f" and at most {high}" if value > high else ""))
        return int(value)

    return read


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """A reader of finite numbers."""
    expected = (
        "a finite number"
        + (f" from {low:g}" if low > -math.inf else "")
        + (f" to {high:g}" if high < math.inf else "")
    )

    def read(text: str) -> float:
        try:
            value = _parse(text)
        except ValueError:
            raise ValueError(expected) from None
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(expected)
        return value

    return read


def several(one: Callable[[str], Any], least: int = 1) -> Callable[[str], tuple]:
    """A reader of values that commas part, each of which `one` reads."""

    def read(text: str) -> tuple:
        parts = text.split(",")
        while parts and parts[-1] == "":  # Darknet counts commas, so a trailing one is harmless
            parts.pop()
        if len(parts) < least:
            raise ValueError(f"at least {least} values separated by commas")
        if len(parts) > MAX_VALUES:
            raise ValueError(f"at most {MAX_VALUES} values")
        return tuple(one(part) for part in parts)

    return read


def one_of(*names: str) -> Callable[[str], str]:
    """A reader of one of these words."""

    def read(text: str) -> str:
        if text not in names:
            near = difflib.get_close_matches(text, names, 1)
            raise ValueError("one of " + ", ".join(names) + (f" (did you mean {near[0]}?)" if near else ""))
        return text

    return read


def activation(text: str) -> str:
    """The name of an activation, as Darknet has it."""
    text = OTHER_NAMES.get(text, text)
    if text in OTHER_FUNCTIONS:
        raise ValueError("one of " + ", ".join(ACTIVATIONS) + "; this function is not supported")
    return one_of(*ACTIVATIONS)(text)


def anchors(text: str) -> tuple[tuple[float, float], ...]:
    """Pairs of width and height."""
    numbers = several(number())(text)
    if len(numbers) % 2:
        raise ValueError(f"pairs of width,height ({len(numbers)} numbers are no pairs)")
    if min(numbers) <= 0:
        raise ValueError("widths and heights above zero")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def off(text: str) -> int:
    """A key of Darknet that changes the arithmetic in a way that is not computed here: refused unless it is
    off.
    """
    try:
        zero = float(text) == 0
    except ValueError:
        zero = False
    if not zero:
        raise ValueError("0: this variant is not supported")
    return 0


def as_it_is(text: str) -> str:
    """Any text."""
    return text
