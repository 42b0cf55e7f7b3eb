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

from darkslim.base import files, records  # noqa: E402
from darkslim.base.errors import DarkslimError  # noqa: E402
from darkslim.report.envelope import digest  # noqa: E402

WRITES = ("--checkpoint", "--cfg_out", "--model_out", "--weights_out", "--out", "--output")
TRAIN = ("train.py", "compress.py")  # go on with --resume
READ = (".cfg", ".data", ".ini", ".names", ".pth", ".weights")  # words that a stage depends on by content


class Stages:
    """Commands with a JSON file each, which says that the command is done.

    A stage is not run again while its words and the files that they name are what they were when it was run;
    a training that was cut off goes on from its state. So a long benchmark can be stopped at any time, and
    never mixes results of two settings.

    Attributes:
        commands: stage -> the command as a user would type it.
        seconds: stage -> wall seconds, also of stages done before.
        sources: stage -> the commit that it was run at (`source`); None of stages that were not told.
    """

    def __init__(self, work: Path, seed: int):
        self.work, self.seed = work, seed
        self.commands: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.sources: dict[str, str | None] = {}
        work.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, *words) -> dict:
        """The JSON of a command, which is run unless it was run just so.

        Raises:
            DarkslimError: the command failed.
        """
        done, note = self.work / f"{name}.json", self.work / f"{name}.stage.json"
        words = [*map(str, words), "--seed", str(self.seed)]
        self.commands[name] = " ".join(["python", *words])
        asked = {"words": words, "read": self._read(words)}
        before = json.loads(note.read_text()) if note.exists() else {}
        same = before.get("asked") == asked
        if not (same and done.exists()):
            if before and not same:
                print(
                    f"\n=== {name} was run with {differs(before['asked'], asked)}: it is run again",
                    flush=True,
                )
            trains = words[0] in TRAIN and "--epochs" in words
            resume = same and trains and (self.work / f"{name}.last.pth").exists()
            files.save(note, records.to_json({"asked": asked}))
            done.unlink(missing_ok=True)
            at = source()
            seconds = self._call(name, words, ["--resume"] if resume else [], done)
            files.save(note, records.to_json({"asked": asked, "seconds": seconds, "source": at}))
        result, told = json.loads(done.read_text()), json.loads(note.read_text())
        self.seconds[name] = told.get("seconds", result.get("seconds"))
        self.sources[name] = told.get("source")
        return result

    def _call(self, name: str, words: list[str], more: list[str], done: Path) -> float:
        """Runs a command; its wall seconds."""
        print(f"\n=== {name}: {self.commands[name]}", flush=True)
        start = time.time()
        code = subprocess.run([sys.executable, *words, *more, "--json", str(done)], cwd=ROOT).returncode
        if code:
            raise DarkslimError(name, f"the command exited {code}", remedy="see its message above")
        return round(time.time() - start, 1)

    def _read(self, words: list[str]) -> dict[str, str | None]:
        """Hashes of the files that a command is given. What it writes itself has no say: a flag names it."""
        written = {w for flag, w in zip(words, words[1:], strict=False) if flag in WRITES}
        return {
            w: digest(ROOT / w)
            for w in words[1:]
            if Path(w).suffix in READ and w not in written and (ROOT / w).is_file()
        }


def source() -> str | None:
    """The commit of the checkout, with a + where its code was changed since; None outside of one."""
    try:
        git = ["git", "-C", str(ROOT)]
        at = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        code = ["status", "--porcelain", "--untracked-files=no", "--", "*.py", "config"]
        changed = subprocess.run([*git, *code], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return at.strip()[:12] + ("+" if changed.strip() else "")


def differs(before: dict, asked: dict) -> str:
    """What is another than it was, in a few words."""
    if before["words"] != asked["words"]:
        gone = [w for w in before["words"] if w not in asked["words"]]
        return "other words" + (f" ({' '.join(gone[:6])})" if gone else "")
    changed = [w for w, hashed in asked["read"].items() if before["read"].get(w) != hashed]
    return f"another {', '.join(changed) or 'set of files'}"
