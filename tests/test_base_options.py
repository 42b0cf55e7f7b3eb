"""Settings that check themselves: readers, groups, files, and what is read from text."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest

from darkslim.base.errors import RequestError
from darkslim.base.options import (
    Options,
    choice,
    count,
    flag,
    fraction,
    option,
    quantity,
    read_values,
    several,
    switch,
    text,
)


@dataclass(frozen=True)
class Small(Options):
    size: int = option(3, count(1, 9), "how large")
    share: float = option(0.5, fraction(), "how much", "-s", "--the-share")
    colour: str = option("red", choice("red", "green"), "which")
    loud: bool = option(False, switch, "or not")
    few: tuple | None = option(None, several(fraction()), "some", group="amount")
    goal: tuple | None = option(None, quantity(k=1e3), "an end", "--goal", group="amount")
    source: str | None = option(None, text, "what is read", reads=True)


@pytest.mark.parametrize(
    "read, value, expected",
    [
        (count(1, 9), "7", 7),
        (count(), 0, 0),
        (fraction(), "0.25", 0.25),
        (fraction(0, 10), 3, 3.0),
        (choice("a", "b"), "b", "b"),
        (switch, "on", True),
        (switch, "No", False),
        (switch, True, True),
        (switch, "0", False),
        (quantity(M=1e6), "2.5M", (2.5e6, True)),
        (quantity(M=1e6), "0.25", (0.25, False)),
        (quantity(M=1e6), "7", (7, True)),
        (quantity(M=1e6), 0.25, (0.25, False)),
        (quantity(M=1e6), (0.5, True), (0.5, True)),
        (quantity(ms=1e-3, s=1), "20ms", (0.02, True)),
        (several(count()), "1, 2 3", (1, 2, 3)),
        (several(count()), [], ()),
        (text, "a/b", "a/b"),
    ],
)
def test_values_are_read_from_text_or_taken_as_they_are(read, value, expected):
    assert read(value) == expected


@pytest.mark.parametrize(
    "read, value, words",
    [
        (count(1, 9), "x", "'x' is no whole number"),
        (count(1, 9), 1.5, "1.5 is no whole number"),
        (count(), True, "True is no"),
        (count(1, 9), 10, "10 is outside 1 to 9"),
        (count(), None, "None is no whole number"),
        (fraction(), "nan", "nan is outside"),
        (fraction(), "much", "'much' is no number"),
        (fraction(), False, "False is no number"),
        (fraction(), 2, "2 is outside 0 to 1"),
        (choice("mean", "max"), "maxi", "maxi is none of mean, max (did you mean max?)"),
        (switch, "maybe", "maybe is neither on"),
        (quantity(M=1e6), "half", "'half' is neither a share nor a number with one of M"),
        (quantity(M=1e6), "0", "0 is not a finite"),
        (quantity(M=1e6), (-1, True), "-1 is not a finite"),
        (quantity(M=1e6), "inf", "inf is not a finite"),
        (text, "", "is empty"),
        (several(count(0, 3)), "1,9", "9 is outside 0 to 3"),
    ],
)
def test_what_cannot_be_is_named(read, value, words):
    with pytest.raises(ValueError) as caught:
        read(value)
    assert words in str(caught.value)


def test_settings_check_themselves_and_are_frozen():
    made = Small(size="4", loud="yes", few="0.1 0.2")
    assert made.to_dict() == {
        "size": 4,
        "share": 0.5,
        "colour": "red",
        "loud": True,
        "few": (0.1, 0.2),
        "goal": None,
        "source": None,
    }
    with pytest.raises(FrozenInstanceError):
        made.size = 5
    assert made.replace(size=5).size == 5 and made.size == 4
    with pytest.raises(RequestError, match="--the-share: 3.0 is outside 0 to 1"):
        made.replace(share=3.0)
    with pytest.raises(RequestError, match="--goal: given with --few; leave one of them out"):
        made.replace(goal="3k")


def test_the_files_that_are_read():
    assert Small().reads() == {} and Small(source="a.txt").reads() == {"--source": "a.txt"}
    assert flag(Small, "share") == "--the-share" and flag(Small, "size") == "--size"


def test_values_of_texts_by_name():
    assert read_values(Small, {"size": "7", "goal": "2k"}, "x.ini") == {"size": 7, "goal": (2000.0, True)}
    with pytest.raises(RequestError, match=r"x.ini: siz is no setting; did you mean size\?"):
        read_values(Small, {"siz": "7"}, "x.ini")
    with pytest.raises(RequestError, match="x.ini: qqq is no setting; one of size, share"):
        read_values(Small, {"qqq": "7"}, "x.ini")
    with pytest.raises(RequestError, match="x.ini: size: 70 is outside 1 to 9"):
        read_values(Small, {"size": "70"}, "x.ini")


def test_what_may_be_nothing_is_nothing_and_no_text():
    """A setting with a default that is not None can still be switched off from Python."""
    from darkslim.pipelines import DetectSettings

    assert DetectSettings(source="x", save=None).save is None
    assert DetectSettings(source="x").save == "runs/detect"
