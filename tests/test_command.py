"""What every command shares: exit codes, one line an error, JSON."""

import argparse
import json
import math

import numpy as np
import pytest

from darkslim import command
from darkslim.errors import CfgError, Interrupted, ProofError, RequestError


def outcome(capsys, main, *argv):
    p = command.parser("test")
    p.add_argument("--percent", type=command.fraction(), default=0.5)
    p.add_argument("--count", type=command.count(1), default=1)
    try:
        code = command.run(main, p, list(argv))
    except SystemExit as e:
        code = e.code
    return code, capsys.readouterr().err


def fail(error):
    def main(args):
        raise error
    return main


@pytest.mark.parametrize("error, code, line", [
    (CfgError("x.cfg:3 [net]", "width=0", "a whole number", "fix it"), 2, "error: x.cfg:3 [net]: width=0; a whole number; fix it\n"),
    (ProofError("x.cfg", "differs"), 3, "error: x.cfg: differs\n"),
    (Interrupted("", "stopped"), 130, "error: stopped\n"),
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
])
def test_exit_codes_and_one_line(capsys, error, code, line):
    assert outcome(capsys, fail(error)) == (code, line)


def test_the_traceback_comes_with_debug_only(capsys):
    assert "Traceback" in outcome(capsys, fail(CfgError("a", "b")), "--debug")[1]


def test_a_line_end_in_a_name_does_not_break_the_line(capsys):
    assert outcome(capsys, fail(CfgError("a\nb", "c")))[1] == "error: a b: c\n"


@pytest.mark.parametrize("argv", [("--percent", "1.5"), ("--percent", "nan"), ("--percent", "x"), ("--count", "0"), ("--count", "1.5"),
                                  ("--nonsense",), ("--perc", "1")])
def test_wrong_flags_are_one_line(capsys, argv):
    code, err = outcome(capsys, lambda args: None, *argv)
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ")


def test_json_is_strict_whatever_was_returned(capsys, tmp_path):
    result = {"a": np.float32(1.5), "b": math.nan, "c": (1, np.int64(2)), 3: tmp_path, "d": np.array([True])}
    code, _ = outcome(capsys, lambda args: result, "--json", str(tmp_path / "out.json"))
    assert code == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"a": 1.5, "b": None, "c": [1, 2], "3": str(tmp_path), "d": [True]}


def test_json_into_a_folder_is_refused_before_the_work(capsys, tmp_path):
    code, err = outcome(capsys, lambda args: pytest.fail("ran"), "--json", str(tmp_path))
    assert code == 2 and "is a folder" in err


def test_devices():
    assert command.device("cpu").type == "cpu"
    for name in ("gpu", "cuda:x", "cuda:99"):
        with pytest.raises(RequestError, match="--device"):
            command.device(name)


def test_number_types_name_what_is_wrong():
    with pytest.raises(argparse.ArgumentTypeError, match="outside 0 to 1"):
        command.fraction()("-0.1")
    assert command.count(0, 5)("5") == 5
