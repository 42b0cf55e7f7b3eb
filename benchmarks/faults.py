"""Signals at random moments and disks that are full, over all commands: is anything lost, are the exit codes
those that are promised?

    python benchmarks/faults.py --json docs/results/faults.json    # an interrupted one goes on

Every trial is a process of its own on a toy data set. A trial with a signal is given the same line again
(train.py with --resume) and must end with the weights of the uninterrupted run, bit for bit; in between every
file that is there must load. SIGINT and SIGTERM must end with 130 and one line. Full disks are files that
cannot grow beyond a size (RLIMIT_FSIZE): exit 2 and one line, what was there before unchanged, no temporary
left, no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stages import ROOT

from darkslim import commands
from darkslim.base.errors import DarkslimError

sys.path.insert(0, str(ROOT / "tests"))
COMMON = ["--model_def", "net.cfg", "--data_config", "toy.data", "--n_cpu", "0", "--device", "cpu"]
TRAIN = [*COMMON, "--batch_size", "4", "--amp", "off"]
LINES = {
    "train": [*TRAIN, "--epochs", "4", "--checkpoint", "a.pth"],
    "train -sr": [*TRAIN, "-sr", "--s", "1", "--epochs", "4", "--checkpoint", "b.pth"],
    "test_prune": [
        *COMMON,
        "--model",
        "start.pth",
        "--percent",
        "0.5",
        "--cfg_out",
        "c.cfg",
        "--model_out",
        "c.pth",
    ],
    "slim": [
        *TRAIN,
        "--work",
        "slim",
        "--epochs",
        "2",
        "--sparse_epochs",
        "2",
        "--finetune_epochs",
        "2",
        "--rate",
        "0.4",
    ],
    "test": [*COMMON, "--weights_path", "start.pth", "--figure", "d.png", "--examples", "e.png"],
}
RESULTS = {
    "train": "a.weights",
    "train -sr": "b.weights",
    "test_prune": "c.weights",
    "slim": "slim/slim.weights",
}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--kills", type=commands.count(0), default=300, help="trials with SIGKILL")
    p.add_argument(
        "--signals", type=commands.count(0), default=30, help="trials with SIGINT, and with SIGTERM"
    )
    p.add_argument(
        "--sizes", type=commands.count(0), default=30, help="sizes of a full disk for each command"
    )
    p.add_argument("--work", default="runs/faults", help="folder of the trials")
    return p


def main(args) -> dict:
    work = (ROOT / args.work).resolve()
    if not (work / "trials.jsonl").exists():
        shutil.rmtree(work, ignore_errors=True)
        prepare(work / "start")
    done = Journal(work / "trials.jsonl")
    whole = {name: reference(work, name) for name in LINES}
    draw = random.Random(args.seed)
    plan = ["SIGKILL"] * args.kills + ["SIGINT"] * args.signals + ["SIGTERM"] * args.signals
    shares = [draw.random() for _ in plan]
    trials, disks = [], []
    for number in commands.progress(range(len(plan)), desc="signals"):
        name = list(RESULTS)[number % len(RESULTS)]
        ask = (work, name, plan[number], shares[number], whole[name])
        trials.append(done.once(f"{plan[number]} {number}", interrupted, ask))
    for name in commands.progress(list(LINES), desc="disks"):
        disks += [done.once(f"{name} {size}", full_disk, (work, name, size)) for size in sizes(args.sizes)]
    table = {}
    for kind in ("SIGKILL", "SIGINT", "SIGTERM", "full disk"):
        mine = disks if kind == "full disk" else [t for t in trials if t["signal"] == kind]
        table[kind] = {"trials": len(mine), "good": sum(not t["faults"] for t in mine)}
        print(f"{kind}: {table[kind]['good']} of {len(mine)} as promised")
    return {
        "summary": table,
        "moments": dict(Counter(t["moment"] for t in trials)),
        "faults": [t for t in [*trials, *disks] if t["faults"]],
        "full_disk_exits": dict(Counter(f"{t['command']}: exit {t['exit']}" for t in disks)),
    }


class Journal:
    """The trials that are done, one line each, so that a long benchmark can be stopped."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {entry["key"]: entry["trial"] for entry in map(json.loads, lines)}

    def once(self, key: str, trial, arguments: tuple) -> dict:
        """The result of a trial, which is run unless it was."""
        if key not in self.done:
            self.done[key] = trial(*arguments)
            with open(self.path, "a") as file:
                file.write(json.dumps({"key": key, "trial": self.done[key]}) + "\n")
        return self.done[key]


def prepare(folder: Path) -> None:
    """Twelve pictures, a tiny network and its weights."""
    from commands import TINY, picture, tiny_model, write  # those of tests/

    from darkslim.network.checkpoints import save_checkpoint

    folder.mkdir(parents=True)
    for i in range(12):
        picture(folder / f"images/{i}.png", (32, 32 + i))
        write(folder / f"labels/{i}.txt", f"{i % 2} 0.5 0.5 0.{25 + i} 0.3\n")
    write(folder / "train.txt", "".join(f"images/{i}.png\n" for i in range(8)))
    write(folder / "valid.txt", "".join(f"images/{i}.png\n" for i in range(8, 12)))
    write(folder / "toy.names", "a\nb\n")
    write(folder / "toy.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=toy.names\n")
    write(folder / "net.cfg", TINY)
    save_checkpoint(folder / "start.pth", tiny_model())


def fresh(work: Path) -> Path:
    shutil.rmtree(work / "now", ignore_errors=True)
    shutil.copytree(work / "start", work / "now")
    return work / "now"


@dataclass
class Child:
    """A process that runs a command. Its output goes through a pipe, which no full disk concerns."""

    number: int
    pipe: int

    def wait(self) -> tuple[int, str]:
        """Its exit code, or minus the signal that ended it, and what it said on stderr."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        with open(self.pipe, "rb") as pipe:
            return code, pipe.read().decode(errors="replace")


def launch(folder: Path, name: str, *more: str, limit: int | None = None) -> Child:
    """Forks a process that runs the command. Libraries are loaded already, so that trials are quick."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)  # holds all that a trial says
    number = os.fork()
    if number:
        os.close(write)
        return Child(number, read)
    code = 70
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(write, 2)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        code = commands.script(name.split()[0], [*LINES[name], *more])
    except SystemExit as e:
        code = e.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 70)


def reference(work: Path, name: str) -> dict:
    folder, began = fresh(work), time.time()
    code, err = launch(folder, name).wait()
    if code:
        raise DarkslimError(name, f"exited {code}: {err[-300:]}")
    seconds = time.time() - began
    return {"seconds": seconds, "bytes": (folder / RESULTS[name]).read_bytes() if name in RESULTS else b""}


def interrupted(work: Path, name: str, kind: str, share: float, whole: dict) -> dict:
    """One trial with a signal."""
    folder, faults = fresh(work), []
    child = launch(folder, name)
    time.sleep(share * whole["seconds"])
    os.kill(child.number, getattr(signal, kind))
    code, err = child.wait()
    faults += unreadable(folder)
    if kind == "SIGKILL":
        faults += [f"exit {code}"] if code not in (0, -9) else []
    else:
        faults += [f"exit {code}"] if code not in (0, 130) else []
        faults += ["more than one line"] if code == 130 and len(errors(err)) != 1 else []
        faults += [f"left {p}" for p in leftovers(folder)]
    if "Traceback" in err:
        faults.append("traceback: " + err.strip().split("\n")[-1][:200])
    moment = f"{name}, {'done' if code == 0 else 'first half' if share < 0.5 else 'second half'}"
    more = (
        ["--resume"]
        if name.startswith("train") and (folder / f"{RESULTS[name][0]}.last.pth").exists()
        else []
    )
    again, err = launch(folder, name, *more).wait()
    if again:
        faults.append(f"again: exit {again}: {err.strip()[-200:]}")
    elif (folder / RESULTS[name]).read_bytes() != whole["bytes"]:
        faults.append("other weights than uninterrupted")
    return {"command": name, "signal": kind, "share": share, "exit": code, "moment": moment, "faults": faults}


def unreadable(folder: Path) -> list[str]:
    """Files of ours that do not load."""
    from darkslim.network.cfg import read_cfg
    from darkslim.network.checkpoints import read_checkpoint
    from darkslim.network.weights import read_header

    found = []
    readers = {".pth": read_checkpoint, ".weights": read_header, ".cfg": read_cfg}
    for path in folder.rglob("*"):
        if path.suffix in readers and not path.name.startswith("."):
            try:
                readers[path.suffix](path)
            except DarkslimError as e:
                found.append(f"unreadable: {e}"[:200])
    return found


def errors(err: str) -> list[str]:
    return [x for x in err.strip().split("\n") if x and not x.startswith("warning: ")]


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.suffix in (".tmp", ".lock")]


def sizes(count: int) -> list[int]:
    """From nothing to more than any file needs, evenly in powers."""
    return [0, *(round(10 ** (1 + 4.2 * i / max(1, count - 2))) for i in range(count - 1))][:count]


def full_disk(work: Path, name: str, size: int) -> dict:
    """One trial on a disk that is full, where an earlier run left its files."""
    folder, faults = fresh(work), []
    launch(folder, name).wait()
    if name == "slim":
        shutil.rmtree(folder / "slim")  # a finished run has nothing to do
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "logs" not in p.parts}
    code, err = launch(folder, name, "--seed", "1", limit=size).wait()
    if code not in (0, 2):
        faults.append(f"exit {code}")
    if "Traceback" in err or (code == 2 and len(errors(err)) != 1):
        faults.append(f"not one line: {err.strip()[-300:]}")
    faults += [f"left {p}" for p in leftovers(folder)] + unreadable(folder)
    if code == 2:
        now = {p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        faults += [f"lost {p.name}" for p, content in before.items() if content not in now]
    return {"command": name, "size": size, "exit": code, "faults": faults}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
