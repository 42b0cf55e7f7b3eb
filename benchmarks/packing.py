"""How long packing and unpacking take, and how much memory: yolov3-tiny, yolov3, and yolov3 twice as wide.

    python benchmarks/packing.py --json docs/results/packing.json

Random weights, nine in ten of each layer's set to 0, 5 bits; compress.py as a user would call it. The peak of
memory is that of its process; what Python and torch take before anything is loaded is shown beside it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from stages import ROOT

from darkslim import commands
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.weights import save_weights
from darkslim.report import machine
from darkslim.report.tables import right

NETWORKS = (("yolov3-tiny", 1), ("yolov3", 1), ("yolov3", 2))


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--bits", type=commands.count(1, 8), default=5, help="of a code")
    p.add_argument("--zeros", type=commands.fraction(), default=0.9, help="share of the weights")
    p.add_argument("--coder", default="ans", help="ans or huffman")
    return p


def main(args) -> dict:
    asked = {"bits": args.bits, "zeros": args.zeros, "coder": args.coder}
    rows = []
    for name, times in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one(args, f"config/{name}.cfg", times, Path(folder)))
        print(*cells(rows[-1]), flush=True)
    head = ["network", "weights", "float32", "packed", "entropy", "pack", "unpack", "memory", "", "before"]
    print(right([head, *(cells(row) for row in rows)]))
    return {"rows": rows, **asked, "machine": machine.describe()}


def cells(row: dict) -> list[str]:
    mega = [f"{row[key] / 1e6:.1f} MB" for key in ("bytes_before", "bytes_after", "entropy")]
    seconds = [f"{row[key]:.2f} s" for key in ("seconds_pack", "seconds_unpack")]
    keys = ("memory_pack", "memory_unpack", "memory_before")
    memory = [f"{row[key] / 1e6:.0f} MB" for key in keys]
    return [row["network"], f"{row['weights']:,}", *mega, *seconds, *memory]


def one(args, cfg: str, times: int, folder: Path) -> dict:
    """Packs and unpacks one network."""
    # in a process of its own: a child that is forked from a large one counts as large
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        weights = pool.submit(made, vars(args), cfg, times, folder).result()
    words = ["pack", "--model_def", folder / "net.cfg", "--weights", folder / "net.weights", "--no_eval"]
    words += ["--bits", args.bits, "--coder", args.coder]
    packed, most = call(folder, *words)
    unpacked, least = call(folder, "unpack", "--file", folder / "net.packed", "--out", folder / "again")
    return {
        "network": f"{Path(cfg).stem}{'' if times == 1 else f', {times}x as wide'}",
        "weights": weights,
        **{key: packed[key] for key in ("bytes_before", "bytes_after", "entropy")},
        "seconds_pack": packed["seconds"],
        "seconds_unpack": unpacked["seconds"],
        "memory_pack": most,
        "memory_unpack": least,
        "memory_before": memory([sys.executable, "compress.py", "--help"]),
    }


def made(args: dict, cfg: str, times: int, folder: Path) -> int:
    """Writes the network; how many weights its kernels have."""
    torch.manual_seed(args["seed"])
    parts = re.split(r"(?=^\[)", (ROOT / cfg).read_text(), flags=re.M)
    for i, part in enumerate(parts):  # all but the convolutions before the heads
        behind = parts[i + 1] if i + 1 < len(parts) else ""
        if part.startswith("[convolutional]") and not behind.startswith("[yolo]"):
            parts[i] = re.sub(r"filters=(\d+)", lambda m: f"filters={times * int(m[1])}", part)
    (folder / "net.cfg").write_text("".join(parts))
    model, count = Darknet(parse_cfg("".join(parts), cfg)).eval(), 0
    with torch.no_grad():
        for conv in model.convolutions().values():
            weights = conv.weight.normal_().numpy()
            least = np.quantile(np.abs(weights.reshape(-1)[:200_000]), args["zeros"])
            weights[np.abs(weights) < least] = 0
            count += weights.size
    save_weights(model, folder / "net.weights")
    return count


def call(folder: Path, *words) -> tuple[dict, int]:
    """(JSON, peak of memory in bytes) of compress.py."""
    out = folder / "out.json"
    most = memory([sys.executable, "compress.py", *map(str, words), "--json", str(out)])
    return json.loads(out.read_text()), most


def memory(words: list[str]) -> int:
    """The peak of memory of a process, in bytes."""
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return 1024 * used.ru_maxrss


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
