"""What reconstruction costs on a full-size network: seconds, memory, and how far it brings the layers back.

    python benchmarks/reconstruction.py --json docs/results/reconstruction.json

The weights are random and pictures are noise in many scales: time does not ask what is in them. Half of the
channels go, ranked by l1. The memory is the peak of the whole process, Python, torch and both networks with
it.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import prune_utils
from darkslim import commands
from darkslim.network.darknet import Darknet
from darkslim.report import machine
from darkslim.report.tables import right

NETWORKS = ("config/yolov3-tiny-hand.cfg", "config/yolov3-hand.cfg")


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--networks", nargs="+", default=list(NETWORKS), help="cfgs")
    p.add_argument("--percent", type=commands.fraction(), default=0.5, help="share of the channels that goes")
    p.add_argument("--batches", type=commands.count(1), default=8, help="of 16 pictures")
    return p


def pictures(batches: int, channels: int, size: tuple[int, int], seed: int) -> list:
    """Batches of noise that is coarse and fine at once, (16, C, H, W) in 0..1, without targets."""
    draw, found = torch.Generator().manual_seed(seed), []
    for _ in range(batches):
        total = torch.zeros(16, channels, *size)
        for scale in (1, 4, 16, 64):
            coarse = torch.rand(16, channels, *(-(-s // scale) for s in size), generator=draw)
            total += torch.nn.functional.interpolate(coarse, size, mode="bilinear") / 4
        found.append((total, torch.zeros(0, 6)))
    return found


def one(cfg: str, percent: float, batches: int, seed: int) -> dict:
    """Cuts a network and reconstructs it, in this process."""
    torch.manual_seed(seed)
    model = Darknet(cfg).eval()
    with torch.no_grad():
        for bn in model.batch_norms().values():
            bn.weight.uniform_(0.2, 1.5)
            bn.bias.normal_(0, 0.3)
    prune_utils.recalibrate(model, pictures(1, model.cfg.channels, model.graph.input_shape[1:], seed + 1))
    plan = prune_utils.plan(model, percent, strategy="slim", score="l1")
    compact = prune_utils.apply(model, plan)
    given = pictures(batches, model.cfg.channels, model.graph.input_shape[1:], seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = prune_utils.reconstruct(model, compact, plan, given, seed=seed)
    seconds = time.perf_counter() - began
    errors = [(fit.before, fit.after) for fit in made.fits]
    return {
        "network": Path(cfg).stem,
        "params": sum(p.numel() for p in model.parameters()),
        "params_after": sum(p.numel() for p in compact.parameters()),
        "pictures": 16 * batches,
        "seconds": seconds,
        "memory_before": 1024 * before,
        "memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "layers": len(errors),
        "error_before": sum(a for a, _ in errors) / len(errors),
        "error_after": sum(b for _, b in errors) / len(errors),
    }


def main(args) -> dict:
    rows = []
    for cfg in args.networks:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(one, cfg, args.percent, args.batches, args.seed).result())
        print(*cells(rows[-1]), flush=True)
    head = ["network", "parameters", "after", "s", "memory", "error of a layer", "after"]
    print(right([head, *(cells(row) for row in rows)]))
    return {"rows": rows, "percent": args.percent, "machine": machine.describe()}


def cells(row: dict) -> list[str]:
    sizes = [f"{row[key] / 1e6:.2f} M" for key in ("params", "params_after")]
    errors = [f"{row[key]:.3f}" for key in ("error_before", "error_after")]
    return [row["network"], *sizes, f"{row['seconds']:.0f}", f"{row['memory'] / 1e9:.1f} GB", *errors]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
