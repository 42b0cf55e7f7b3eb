"""What every command shares: common flags, exit codes, `--json`, progress bars, seeds and devices.

A command is written as

    def main(args) -> dict:              # returns what `--json` writes
        ...
    if __name__ == "__main__":
        raise SystemExit(command.run(main, parser()))
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from . import files
from .errors import DarkslimError, RequestError, one_line


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one line like every other error."""

    def error(self, message: str):
        """Exits with 2."""
        self.exit(2, f"error: {message}; see --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults behind every flag that has one."""

    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the flags that every command has."""
    p = Parser(description=description, formatter_class=_Help, allow_abbrev=False)
    p.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="seed of every random choice")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--json", metavar="FILE", default=None, help="write what was printed as one JSON object")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def run(main: Callable[[argparse.Namespace], dict | None], p: argparse.ArgumentParser, argv=None) -> int:
    """Runs a command and turns its errors into one line and an exit code.

    Returns:
        0 done; 2 the input or the request is wrong; 3 a proof failed; 130 interrupted.
    """
    args = p.parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        if args.json is not None:
            check_outputs({"--json": args.json}, {})
        result = main(args)
        if args.json is not None:
            files.save(args.json, to_json(result or {}))
        return 0
    except DarkslimError as e:
        if args.debug:
            traceback.print_exc()
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        if args.debug:
            traceback.print_exc()
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def check_outputs(writes: dict[str, str | Path | None], reads: dict[str, str | Path | None]) -> None:
    """Refuses, before any work, what a command could not write at its end, or must not.

    Args:
        writes, reads: flag -> path; None where there is none.

    Raises:
        RequestError: an output is a file that is read, or another output.
        FileError: an output cannot be written.
    """
    seen: dict[str, str] = {}
    for flag, path in writes.items():
        if path is None:
            continue
        for other, source in reads.items():
            if source is not None and _same(path, source):
                raise RequestError(flag, f"{path} is what {other} reads", "another file: inputs are never overwritten")
        real = os.path.realpath(path)
        if real in seen:
            raise RequestError(flag, f"{path} is what {seen[real]} names", "files of their own")
        seen[real] = flag
        files.check_writable(path)


def _same(a, b) -> bool:
    return os.path.realpath(a) == os.path.realpath(b) or (os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b))


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, UserWarning):
        print(f"warning: {one_line(str(message))}", file=sys.stderr)


def jsonable(value):
    """`value` with numpy and torch scalars, tuples, paths and non-finite floats made fit for JSON."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value) -> str:
    """`value` as indented, strict JSON text."""
    return json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n"


def progress(items: Iterable | None = None, total: int | None = None, desc: str = "", **kwargs):
    """A tqdm bar, silent when the output is no terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=desc, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False, **kwargs)


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def device(name: str):
    """The torch device that `--device` names.

    Raises:
        RequestError: CUDA asked for and absent, or a name that is no device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name != "cuda" and not (name.startswith("cuda:") and name[5:].isdigit()):
        raise RequestError("--device", repr(name), "auto, cpu, cuda or cuda:N")
    if name.startswith("cuda"):
        count = torch.cuda.device_count()
        if count == 0:
            raise RequestError("--device", f"{name} was asked for, but no GPU can be used here", remedy="use --device cpu")
        if name != "cuda" and int(name[5:]) >= count:
            raise RequestError("--device", f"{name} was asked for, but there are {count} GPUs", f"cuda:0 to cuda:{count - 1}")
    return torch.device(name)


def fraction(low: float = 0.0, high: float = 1.0):
    """An argparse type: a number in [low, high]; NaN is refused."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is outside {low:g} to {high:g}")
        return value

    return parse


def count(low: int = 0, high: int = 2**31):
    """An argparse type: a whole number in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is outside {low} to {high}")
        return value

    return parse


def quantity(**units: float):
    """An argparse type: (value, absolute). `0.25` is a share, (0.25, False); `2.5M` is a number of units, (2.5e6, True).

    Args:
        units: suffix -> factor. A number above 1 without a suffix is taken as it is.
    """
    known = ", ".join(units)

    def parse(text: str) -> tuple[float, bool]:
        suffix = max((u for u in units if text.endswith(u)), key=len, default="")
        try:
            value = float(text.removesuffix(suffix))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a share nor a number with one of {known}") from None
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
        if suffix or value > 1:
            return value * units.get(suffix, 1.0), True
        return value, False

    return parse
