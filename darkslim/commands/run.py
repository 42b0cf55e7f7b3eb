"""One way to run a command: exit codes, one line an error, `--json` with its envelope."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from ..base import files, records
from ..base.errors import DarkslimError, one_line


def run(main: Callable[[argparse.Namespace], dict | None], p: argparse.ArgumentParser, argv=None) -> int:
    """Runs a command and turns its errors into one line and an exit code.

    Returns:
        0 done; 2 the input or the request is wrong; 3 a proof failed; 130 interrupted.
    """
    args = p.parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        if args.json is not None:
            files.check_outputs({"--json": args.json}, {})
        result = main(args)
        if args.json is not None:
            files.save(args.json, records.to_json({**(result or {}), "run": _origin(main, args, argv)}))
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
    except OSError as e:  # of a library that found no room or no right where nobody expected it to write
        if args.debug:
            traceback.print_exc()
        place, reason = e.filename or "the system", one_line(str(e.strerror or e))[:200]
        print(
            f"error: {place}: {reason}; check the disks and their rights (--debug shows where)",
            file=sys.stderr,
        )
        return 2


def script(name: str, argv=None, prog: str | None = None) -> int:
    """Runs the command of a name: the script at the top level, or a word behind `darkslim`.

    Ctrl-C and SIGTERM while torch is being imported, which takes seconds, end it as they would later.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        module = importlib.import_module(f"..{name}_command", __name__)
        p = module.parser()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    p.prog = prog or p.prog
    return run(module.main, p, argv)


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _origin(main, args, argv) -> dict:
    """The envelope: which command, with what, on which machine."""
    from ..report.envelope import envelope  # only with --json: it needs torch

    words = sys.argv[1:] if argv is None else list(argv)
    stem = Path(main.__code__.co_filename).stem.removesuffix("_command")
    return envelope(f"{stem}.py", [str(word) for word in words], getattr(args, "inputs", {}))


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, UserWarning):
        print(f"warning: {one_line(str(message))}", file=sys.stderr)
