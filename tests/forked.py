"""Processes for tests that need one, for signals, kills and exit codes, without seconds of imports each: they
are forked from a server that has imported every command and run none.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import forkserver, reduction
from pathlib import Path

import spared

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("train", "test", "test_prune", "slim", "converter")
COMMAND = "import sys\nfrom darkslim.commands import script\nsys.exit(script({!r}, sys.argv[1:]))"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["torch.utils.tensorboard", "torch._dynamo", "scipy.sparse"]
    + [f"darkslim.commands.{name}_command" for name in NAMES]
)


@functools.cache
def _server() -> None:
    """Starts it where it finds the package: it does not look where this process does."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


class Process:
    """Python code in a process of its own, with the parts of subprocess.Popen that tests use.

    Args:
        code: what `python -c` would run. words: its arguments. cwd: the folder it runs in.
        env: variables that are changed.
    """

    def __init__(self, code: str, words=(), cwd=".", env: dict[str, str] | None = None):
        _server()
        (out, their_out), (err, their_err) = os.pipe(), os.pipe()
        ends = [reduction.DupFd(end) for end in (their_out, their_err)]
        words = [str(word) for word in words]
        folder = str(Path(cwd).resolve())
        self._process = _context.Process(target=_run, args=(code, words, folder, env or {}, *ends))
        self._process.start()
        self.pid = self._process.pid
        self.stdout, self.stderr = (open(end, errors="replace") for end in (out, err))
        os.close(their_out)
        os.close(their_err)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it still says, once it has ended.

        Raises:
            TimeoutExpired: it has not, and is killed.
        """
        said = ["", ""]

        def read(place: int, stream) -> None:
            with stream:
                said[place] = stream.read()

        readers = [
            threading.Thread(target=read, args=(place, stream), daemon=True)
            for place, stream in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("a forked process", timeout)
        for reader in readers:
            reader.join(timeout)
        return said[0], said[1]


def start(name: str, words, cwd, before: str = "", env: dict[str, str] | None = None) -> Process:
    """A command as a process; `before` is run in it first."""
    return Process(f"{before}\n{COMMAND.format(name)}", words, cwd, env)


def run(name: str, words, cwd, timeout: float = 120) -> subprocess.CompletedProcess:
    """A command as a process, to its end."""
    process = start(name, words, cwd)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess([name, *words], process.returncode, out, err)


def _run(code: str, words: list[str], folder: str, env: dict[str, str], out, err) -> None:
    """In the forked process: the streams of a process, then the code."""
    multiprocessing.set_start_method("fork", force=True)  # of its own children, as in any other process
    for number, end in ((1, out), (2, err)):
        mine = end.detach()
        os.dup2(mine, number)
        os.close(mine)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, errors="replace", closefd=False) for n in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    spared.drawing(setattr)
    spared.timing(setattr)
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
