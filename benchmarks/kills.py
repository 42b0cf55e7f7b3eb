"""Is slim.py the same run after any kill? SIGKILL at random moments, and the same line again, until it is
done.

    python benchmarks/kills.py --json docs/results/kills.json

One run that nobody interrupts, on drawn hands, on the CPU and in float32, says how long each stage takes.
Then every trial draws a stage and a moment in it, kills the whole group of processes there, and gives the
same line again: the weights and the cfg that are handed back must be those of the uninterrupted run, bit for
bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from stages import ROOT, Stages

from darkslim import commands
from darkslim.base.errors import DarkslimError

CFG = "config/yolov3-tiny-demo.cfg"
FILES = (
    "slim.weights",
    "slim_yolov3-tiny-demo.cfg",
    "step1/pruned.weights",
    "step2/tuned.weights",
    "dense.weights",
)


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--work", default="runs/kills", help="folder of all runs")
    p.add_argument("--images", type=commands.count(10), default=80, help="pictures to draw")
    p.add_argument("--kills", type=commands.count(1), default=10, help="trials, one SIGKILL each")
    return p


def main(args) -> dict:
    work = Path(args.work)
    data = work / "data" / "oxfordhand.data"
    Stages(ROOT / work, args.seed).run(
        "generate",
        "converter.py",
        "--generate",
        args.images,
        "--input",
        work / "hand_dataset",
        "--output",
        work / "data",
    )
    draw, whole = random.Random(args.seed), ROOT / work / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    seconds = finish(words(args, work / "whole", data))
    expected, stages = digests(whole), stage_names(whole)
    print(f"uninterrupted: {seconds:.1f} s, {len(stages)} stages: {', '.join(stages)}")
    trials = [
        trial(args, work, data, number, draw, seconds, expected, stages) for number in range(args.kills)
    ]
    equal = sum(t["equal"] for t in trials)
    print(f"{equal} of {len(trials)} ended with the same files")
    if equal < len(trials):
        raise DarkslimError(
            "slim.py", f"{len(trials) - equal} of {len(trials)} killed runs ended with other files"
        )
    hit = sorted({t["killed_in"] for t in trials})
    return {
        "trials": trials,
        "equal": equal,
        "stages": stages,
        "stages_hit": hit,
        "seconds_uninterrupted": seconds,
        "command": " ".join(words(args, work / "whole", data)),
        "seed": args.seed,
    }


def words(args, folder: Path, data: Path) -> list[str]:
    """The line of the run: two steps with sparsity training, recalibration and a list that chooses."""
    flags = {
        "--model_def": CFG,
        "--data_config": data,
        "--recipe": "slimming-iterative",
        "--iterative-steps": 2,
        "--rate": 0.5,
        "--epochs": 3,
        "--sparse_epochs": 4,
        "--finetune_epochs": 4,
        "--max-map-drop": 1,
        "--batch_size": 4,
        "-lr": 0.003,
        "--amp": "off",
        "--device": "cpu",
        "--n_cpu": 0,
        "--seed": args.seed,
        "--work": folder,
    }
    return ["slim.py", *(str(word) for pair in flags.items() for word in pair)]


def start(line: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *line],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finish(line: list[str]) -> float:
    """Seconds of a run that must end well."""
    began, process = time.perf_counter(), start(line)
    _, err = process.communicate()
    if process.returncode:
        raise DarkslimError("slim.py", f"exited {process.returncode}: {err.decode()[-300:]}")
    return time.perf_counter() - began


def trial(
    args,
    work: Path,
    data: Path,
    number: int,
    draw: random.Random,
    seconds: float,
    expected: dict,
    stages: list[str],
) -> dict:
    """One kill, and the same line again. Trials go through the stages in turn; the moment in a stage is
    drawn.
    """
    folder = ROOT / work / f"killed-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    line, stage = words(args, work / folder.name, data), stages[number % len(stages)]
    process, moment = start(line), draw.random()
    before = stages[number % len(stages) - 1] if number % len(stages) else None
    while process.poll() is None and before and not (folder / f"{before}.json").exists():
        time.sleep(0.005)
    wait = moment * seconds / len(stages) + (
        1.5 if before is None else 0
    )  # the first stage begins once torch is loaded
    time.sleep(wait)
    alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL) if alive else None
    process.communicate()
    left = stage_names(folder)
    again = finish(line)
    equal = digests(folder) == expected
    print(
        f"kill {number}: aimed at {stage}, {wait:.2f} s in, {len(left)} stages done; again {again:.1f} s; "
        f"{'equal' if equal else 'OTHER FILES'}",
        flush=True,
    )
    shutil.rmtree(folder)
    done = len(left)
    return {
        "aimed_at": stage,
        "wait": wait,
        "killed": alive,
        "stages_done": done,
        "killed_in": stages[done] if done < len(stages) else "after the end",
        "seconds_again": again,
        "equal": equal,
    }


def digests(folder: Path) -> dict[str, str | None]:
    """SHA-256 of what must not differ."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).exists() else None
        for name in FILES
    }


def stage_names(folder: Path) -> list[str]:
    """The stages that are done, in the order in which they were."""
    paths = [p for p in folder.rglob("*.json") if p.name != "run.json" and "logs" not in p.parts]
    for path in paths:
        json.loads(path.read_text())  # whole, or not there
    return [
        str(p.relative_to(folder).with_suffix("")) for p in sorted(paths, key=lambda p: p.stat().st_mtime_ns)
    ]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
