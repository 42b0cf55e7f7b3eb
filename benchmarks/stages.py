"""Runs the project's commands one after another, each once: what the demo and the accuracy benchmarks
share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from darkslim.base.errors import DarkslimError  # noqa: E402


class Stages:
    """Commands with a JSON file each, which says that the command is done.

    A stage whose JSON lies in the working folder is not run again, and a training that was cut off goes on
    from its state, so that a long benchmark can be stopped at any time.

    Attributes:
        commands: stage -> the command as a user would type it.
        seconds: stage -> wall seconds, also of stages done before.
    """

    def __init__(self, work: Path, seed: int):
        self.work, self.seed = work, seed
        self.commands: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        work.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, *words) -> dict:
        """The JSON of a command, which is run unless its JSON is there.

        Raises:
            DarkslimError: the command failed.
        """
        done, clock = self.work / f"{name}.json", self.work / f"{name}.seconds"
        words = [str(w) for w in words]
        self.commands[name] = " ".join(["python", *words])
        if not done.exists():
            print(f"\n=== {name}: {self.commands[name]}", flush=True)
            resume = ["--resume"] if words[0] == "train.py" and list(self.work.glob(f"{name}.last*")) else []
            start = time.time()
            line = [sys.executable, *words, *resume, "--seed", str(self.seed), "--json", str(done)]
            code = subprocess.run(line, cwd=ROOT).returncode
            if code:
                raise DarkslimError(name, f"the command exited {code}", remedy="see its message above")
            clock.write_text(f"{time.time() - start:.1f}")
        result = json.loads(done.read_text())
        self.seconds[name] = float(clock.read_text()) if clock.exists() else result.get("seconds")
        return result
