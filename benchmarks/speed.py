"""How much of a cut arrives as time, in every engine: yolov3 as it is and cut to 9.5 and 3.5 G multiply-adds.

    python benchmarks/speed.py --json docs/results/speed.json
    python benchmarks/speed.py --also bccd=config/yolov3-tiny-bccd.cfg,dense.pth,dense_int8.onnx --json ...

The weights are random and the channels that go are drawn: time does not ask what is in them. Widths are
rounded to the multiple that `--round_to auto` finds in --engine; the same cut without rounding is measured
beside it. Times are those of benchmarks/engines.py, all networks and engines in one run. `kept` is the ratio
of the times over the ratio of the multiply-adds: 1 where all that was cut arrives. Stages that are done are
not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import engines
import torch
from stages import Stages

from darkslim import commands
from darkslim.base import devices
from darkslim.network.darknet import Darknet
from darkslim.network.weights import save_weights

TARGETS = {"9.5G": "9.5G", "3.5G": "3.5G"}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-hand.cfg", help="the network")
    p.add_argument("--work", default="runs/speed", help="folder of the stages")
    p.add_argument("--engine", default="openvino-int8", help="in which the multiple is found")
    p.add_argument("--also", action="append", default=[], help="further networks, as engines.py takes them")
    p.add_argument("--engines", nargs="+", choices=engines.NAMES, default=list(engines.NAMES), help="which")
    p.add_argument("--batches", type=commands.count(1), nargs="+", default=[1, 8], help="pictures at once")
    p.add_argument("--turns", type=commands.count(3), default=5, help="of each engine and batch")
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(work, args.seed)
    devices.seed_everything(args.seed)
    weights = work / "random.weights"
    if not weights.exists():
        with torch.no_grad():
            save_weights(Darknet(args.model_def), weights)
    networks, cuts = [f"dense={args.model_def},{weights}"], {}
    for name, target in TARGETS.items():
        for rounding in ("auto", "1"):
            label = f"{name}{'' if rounding == 'auto' else ' unrounded'}"
            stem = label.replace(" ", "_").replace(".", "_")
            cfg, out = work / f"{stem}.cfg", work / f"{stem}.pth"
            words = ["test_prune.py", "--model_def", args.model_def, "--model", weights, "--no_eval"]
            words += ["--strategy", "slim", "--score", "random", "--target-macs", target]
            words += ["--round_to", rounding, "--engine", args.engine, "--cfg_out", cfg, "--model_out", out]
            cuts[label] = stages.run(stem, *words)
            networks.append(f"{label}={cfg},{out}")
    measured = engines.main(
        argparse.Namespace(
            network=[*networks, *args.also],
            engines=args.engines,
            batches=args.batches,
            turns=args.turns,
            conf_thres=[],  # random weights let nearly all boxes pass
            data_config=None,
            seed=args.seed,
        )
    )
    ratios = kept(measured["rows"], list(cuts))
    for row in ratios:
        print(
            f"{row['network']:16} {row['engine']:18} batch {row['batch']}: MACs {row['macs_ratio']:.2f}x, "
            f"time {row['time_ratio']:.2f}x, kept {row['kept']:.2f}, from eager {row['from_eager']:.1f}x"
        )
    return {
        "ratios": ratios,
        "round_to": {name: cut["round_to"] for name, cut in cuts.items()},
        "commands": stages.commands,
        "sources": stages.sources,
        **measured,
    }


def kept(rows: list[dict], names: list[str]) -> list[dict]:
    """For each cut, engine and batch: how much of the multiply-adds' ratio the time's is, and how much faster
    it is than the dense network as PyTorch trains it.
    """
    times = {(row["network"], row["engine"], row["batch"]): row for row in rows if "seconds" in row}
    found = []
    for (network, engine, batch), row in times.items():
        dense, eager = (times.get(("dense", name, batch)) for name in (engine, "torch"))
        if network in names and dense and eager:
            macs, time = dense["macs"] / row["macs"], dense["seconds"] / row["seconds"]
            one = {"network": network, "engine": engine, "batch": batch, "macs_ratio": macs}
            one |= {"time_ratio": time, "kept": time / macs, "from_eager": eager["seconds"] / row["seconds"]}
            found.append(one)
    return found


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
