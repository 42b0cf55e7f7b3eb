"""What every command shares: exit codes, one line an error, JSON."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from darkslim import commands
from darkslim.base import devices
from darkslim.base.errors import CfgError, Interrupted, ProofError, RequestError


def outcome(capsys, main, *argv):
    p = commands.parser("test")
    p.add_argument("--percent", type=commands.fraction(), default=0.5)
    p.add_argument("--count", type=commands.count(1), default=1)
    try:
        code = commands.run(main, p, list(argv))
    except SystemExit as e:
        code = e.code
    return code, capsys.readouterr().err


def fail(error):
    def main(args):
        raise error

    return main


@pytest.mark.parametrize(
    "error, code, line",
    [
        (
            CfgError("x.cfg:3 [net]", "width=0", "a whole number", "fix it"),
            2,
            "error: x.cfg:3 [net]: width=0; a whole number; fix it\n",
        ),
        (ProofError("x.cfg", "differs"), 3, "error: x.cfg: differs\n"),
        (Interrupted("", "stopped"), 130, "error: stopped\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_exit_codes_and_one_line(capsys, error, code, line):
    assert outcome(capsys, fail(error)) == (code, line)


def test_the_traceback_comes_with_debug_only(capsys):
    assert "Traceback" in outcome(capsys, fail(CfgError("a", "b")), "--debug")[1]


def test_a_line_end_in_a_name_does_not_break_the_line(capsys):
    assert outcome(capsys, fail(CfgError("a\nb", "c")))[1] == "error: a b: c\n"


@pytest.mark.parametrize(
    "argv",
    [
        ("--percent", "1.5"),
        ("--percent", "nan"),
        ("--percent", "x"),
        ("--count", "0"),
        ("--count", "1.5"),
        ("--nonsense",),
        ("--perc", "1"),
    ],
)
def test_wrong_flags_are_one_line(capsys, argv):
    code, err = outcome(capsys, lambda args: None, *argv)
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ")


def test_json_is_strict_whatever_was_returned(capsys, tmp_path):
    result = {"a": np.float32(1.5), "b": math.nan, "c": (1, np.int64(2)), 3: tmp_path, "d": np.array([True])}
    code, _ = outcome(capsys, lambda args: result, "--json", str(tmp_path / "out.json"))
    assert code == 0
    written = json.loads((tmp_path / "out.json").read_text())
    origin = written.pop("run")
    assert written == {"a": 1.5, "b": None, "c": [1, 2], "3": str(tmp_path), "d": [True]}
    assert origin["command"] == Path(__file__).name and origin["arguments"] == [
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert origin["versions"]["torch"] == torch.__version__ and origin["machine"]["cores"] >= 1


def test_json_into_a_folder_is_refused_before_the_work(capsys, tmp_path):
    code, err = outcome(capsys, lambda args: pytest.fail("ran"), "--json", str(tmp_path))
    assert code == 2 and "is a folder" in err


def test_devices():
    assert devices.device("cpu").type == "cpu"
    for name in ("gpu", "cuda:x", "cuda:99"):
        with pytest.raises(RequestError, match="--device"):
            devices.device(name)


def test_number_types_name_what_is_wrong():
    with pytest.raises(argparse.ArgumentTypeError, match="outside 0 to 1"):
        commands.fraction()("-0.1")
    assert commands.count(0, 5)("5") == 5


def test_a_quantity_is_a_share_or_a_number_of_units():
    parse, seconds = commands.quantity(k=1e3, M=1e6, G=1e9), commands.quantity(ms=1e-3, s=1)
    for text, found in (
        ("0.25", (0.25, False)),
        ("1", (1, False)),
        ("1.0", (1, False)),
        ("1e-3", (0.001, False)),
        ("1.5", (1.5, True)),
        ("2000", (2000, True)),
        ("2.5M", (2_500_000, True)),
        ("0.5k", (500, True)),
        ("3G", (3e9, True)),
    ):
        assert parse(text) == found
    assert seconds("20ms") == (pytest.approx(0.02), True) and seconds("0.5s") == (0.5, True), (
        "ms is no s behind an m"
    )
    assert seconds("2") == (2, True)
    for text in ("0", "-1", "-2M", "nan", "inf", "0k", "1e400", "nanM"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a finite number above 0"):
            parse(text)
    for text in ("2X", "M", "", "2m", "2.5 millions", "50%", "1,000", "0x10"):
        with pytest.raises(
            argparse.ArgumentTypeError, match="neither a share nor a number with one of k, M, G"
        ):
            parse(text)
    with pytest.raises(argparse.ArgumentTypeError, match="with one of ms, s"):
        seconds("3G")


def test_help_shows_defaults_that_say_something():
    p = commands.parser("x")
    p.add_argument("--count", type=commands.count(), default=0, help="how many")
    p.add_argument("--place", default=None, help="where; none: here")
    p.add_argument("--quiet", action="store_true", help="say nothing")
    text = " ".join(p.format_help().split())
    assert "seed of every random choice (default: 0)" in text and "how many (default: 0)" in text
    assert "None" not in text and "False" not in text
