"""Parsers: flags out of settings, the flags that every command has, and argparse types for flags of one's
own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from ..base import files, options
from ..base.errors import RequestError
from ..base.options import Option

# what commands write beside it, or read
OTHER_KINDS = (".pth", ".pt", ".weights", ".cfg", ".data", ".names", ".ini", ".png", ".jpg", ".jpeg", ".lock")


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one line like every other error. `kind` is the class of settings behind
    its flags.
    """

    kind: type | None = None

    def error(self, message: str):
        """Exits with 2."""
        self.exit(2, f"error: {message}; see --help\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults behind every flag that has one."""

    def _get_help_string(self, action):
        plain = action.default is None or action.default is False or action.default is argparse.SUPPRESS
        return action.help if plain else super()._get_help_string(action)


def parser(description: str) -> Parser:
    """A parser with the flags that every command has."""
    p = Parser(description=description, formatter_class=_Help, allow_abbrev=False)
    p.add_argument("--seed", type=count(0, 2**32 - 1), default=0, help="seed of every random choice")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return _always(p)


def options_parser(description: str, kind: type) -> Parser:
    """A parser with a flag for every option of a class of settings.

    A flag that is not given leaves nothing in the namespace: `settings` fills in defaults, which a recipe may
    have changed.
    """
    return _with_options(Parser(description=description, formatter_class=_Help, allow_abbrev=False), kind)


def commands_parser(description: str, kinds: dict[str, tuple[type, str]]) -> Parser:
    """A parser whose first word names one of several jobs, each with flags of its own.

    Args:
        kinds: word -> (class of settings, what it does in one line). The word is `args.job`.
    """
    p = Parser(description=description, formatter_class=_Help, allow_abbrev=False)
    words = p.add_subparsers(dest="job", metavar="JOB", required=True, parser_class=Parser)
    for word, (kind, what) in kinds.items():
        one = words.add_parser(word, help=what, description=what, formatter_class=_Help, allow_abbrev=False)
        _with_options(one, kind)
    return p


def _with_options(p: Parser, kind: type) -> Parser:
    p.kind = kind
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, its in options.options(kind).items():
        if its.group and its.group not in groups:
            groups[its.group] = p.add_argument_group(its.group)
        groups.get(its.group, p).add_argument(
            *(its.flags or (f"--{name}",)),
            dest=name,
            default=argparse.SUPPRESS,
            **_how(its),
            help=_explained(its, options.default_of(kind, name)),
        )
    return _always(p)


def settings(kind: type, args: argparse.Namespace, **more):
    """The settings that a command line asks for.

    Args:
        more: what the command knows beside it; what was given on the command line wins.

    Raises:
        RequestError: values that exclude each other; `--json` over a file that is read.
    """
    made = kind(
        **{**more, **{name: value for name, value in vars(args).items() if name in options.options(kind)}}
    )
    args.inputs = made.reads()  # for the envelope of --json
    files.check_outputs({"--json": args.json}, args.inputs)
    return made


def unless_default(settings, name: str) -> str:
    """` --name VALUE` for a next command; nothing where it is the default."""
    value = getattr(settings, name)
    return "" if value == getattr(type(settings), name) else f" --{name} {value}"


def guard(settings, args: argparse.Namespace, writes: dict, *lists) -> None:
    """Refuses, before any work, outputs that are inputs or each other.

    Args:
        writes: flag -> path of what the command writes beside `--json`. lists: further lists of pictures.

    Raises:
        RequestError, FileError: as `inputs.check_spared`.
    """
    from ..data.inputs import check_spared  # not for --help

    check_spared({**writes, "--json": args.json}, settings.reads(), settings.data_config, lists)
    check_json(args.json)


def check_json(path) -> None:
    """Refuses, before any work, a place for `--json` where something else than JSON is or will be.

    Raises:
        RequestError, FileError: with the reason.
    """
    if path is None:
        return
    if Path(path).suffix.lower() in OTHER_KINDS:
        raise RequestError(
            "--json", f"{path} is a name of another kind of file", "another file, such as x.json"
        )
    if os.path.exists(path) and os.path.getsize(path):
        head = files.read_head(path, "file", 64).lstrip()
        if not head.startswith((b"{", b"[")):
            raise RequestError(
                "--json", f"{path} is there and holds no JSON", "another file: inputs are never overwritten"
            )


def _always(p: Parser) -> Parser:
    p.add_argument("--json", metavar="FILE", default=None, help="write what was printed as one JSON object")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def _how(its: Option) -> dict:
    """The keywords of add_argument for one option."""
    if its.read is options.switch:
        return {"action": "store_true"}
    if hasattr(its.read, "one"):
        return {"nargs": "*", "type": typed(its.read.one), "metavar": its.metavar}
    if hasattr(its.read, "choices"):
        return {"choices": its.read.choices, "metavar": its.metavar}
    return {"type": typed(its.read), "metavar": its.metavar}


def _explained(its: Option, default) -> str:
    text = its.help.replace("%", "%%")
    return text if default is None or default is False or default == () else f"{text} (default: {default})"


def typed(read: Callable) -> Callable:
    """A reader of options as an argparse type."""

    def parse(text: str):
        try:
            return read(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return parse


def fraction(low: float = 0.0, high: float = 1.0):
    """An argparse type: a number in [low, high]; NaN is refused."""
    return typed(options.fraction(low, high))


def count(low: int = 0, high: int = 2**31):
    """An argparse type: a whole number in [low, high]."""
    return typed(options.count(low, high))


def quantity(**units: float):
    """An argparse type: (value, absolute), as `options.quantity` reads it."""
    return typed(options.quantity(**units))
