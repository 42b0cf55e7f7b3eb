"""From a trained network to what is deployed, on real pictures: cut, reconstructed, exported, in 8 bits.

    python benchmarks/deployed.py --json docs/results/deployed.json

Every stage is a command as a user would type it, and is not run again. mAP is that of the exported files,
run by their own programs on `valid`, which chooses nothing; times are those of benchmarks/engines.py, all in
one run, decoding and suppression included. --knapsack compares two ways to fill a budget of time: a threshold
on scores, and blocks of channels by what they are worth for what they cost, at an equal target.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import engines
from stages import Stages

from darkslim import commands
from darkslim.report.tables import right


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--model", default="runs/bccd/dense.pth", help="its weights")
    p.add_argument("--data_config", default="config/bccd.data", help="its data set")
    p.add_argument("--work", default="runs/deployed", help="folder of the stages")
    p.add_argument("--share", type=float, default=0.25, help="of the MACs that the cut leaves")
    p.add_argument("--score", default="repair", help="of the cut")
    p.add_argument("--engine", default="openvino", help="in which widths are rounded and budgets are met")
    p.add_argument("--batches", type=commands.count(1), default=8, help="that repair, 16 pictures each")
    p.add_argument("--turns", type=commands.count(3), default=5, help="of each engine")
    p.add_argument("--knapsack", type=float, nargs="*", default=[], help="shares of the time to compare at")
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(work, args.seed)
    data = ["--data_config", args.data_config]
    network = ["--model_def", args.model_def, "--model", args.model, *data, "--strategy", "slim"]
    repair = ["--reconstruct", args.batches, "--engine", args.engine]
    slim = stages.run(
        "slim",
        *("test_prune.py", *network, *repair, "--score", args.score, "--target-macs", args.share),
        *("--round_to", "auto", "--cfg_out", work / "slim.cfg", "--model_out", work / "slim.pth"),
    )
    files = {"dense": (args.model_def, args.model), "slim": (work / "slim.cfg", work / "slim.pth")}
    rows = []
    for name, (cfg, weights) in files.items():
        for kind, flags in (("float32", ()), ("int8", ("--int8",))):
            out = work / f"{name}_{kind}.onnx"
            words = ["export.py", "--model_def", cfg, "--weights", weights, *data, "--out", out, *flags]
            made = stages.run(f"{name}_{kind}", *words)
            row = {"network": name, "precision": kind, "map50": made["map50_exported"]}
            row |= {"bytes": made["bytes"], "kept_float": made.get("kept_float", [])}
            rows.append(row)
        checked = stages.run(
            f"{name}_openvino",
            *("test.py", "--exported", work / f"{name}_int8.onnx", "--engine", "openvino", *data),
        )
        rows.append({"network": name, "precision": "int8 in openvino", "map50": checked["map50"]})
    networks = [
        f"{name}={cfg},{weights},{work / f'{name}_int8.onnx'}" for name, (cfg, weights) in files.items()
    ]
    measured = engines.main(
        argparse.Namespace(
            network=networks,
            engines=list(engines.NAMES),
            batches=[1],
            turns=args.turns,
            conf_thres=0.25,
            seed=args.seed,
        )
    )
    budgets = [at_equal_time(stages, work, network, repair, share) for share in args.knapsack]
    print(right([["network", "precision", "mAP50", "bytes"], *(shown(row) for row in rows)]))
    times = {(row["network"], row["engine"]): row for row in measured["rows"] if "seconds" in row}
    eager = times["dense", "torch"]["with_nms"]
    for (name, engine), row in times.items():
        row["from_eager"] = eager / row["with_nms"]
        print(f"{name:6} {engine:18} {row['from_eager']:5.1f} times faster than dense in PyTorch, end to end")
    return {
        "dense_map50": slim["map50_before"],
        "slim_map50": slim["map50_after"],
        "params": [slim["params_before"], slim["params_after"]],
        "macs": [slim["macs_before"], slim["macs_after"]],
        "round_to": slim["round_to"],
        "precisions": rows,
        "knapsack": budgets,
        "commands": stages.commands,
        **measured,
    }


def shown(row: dict) -> list[str]:
    size = f"{row['bytes']:,}" if "bytes" in row else ""
    return [row["network"], row["precision"], f"{row['map50']:.4f}", size]


def at_equal_time(stages: Stages, work: Path, network: list, repair: list, share: float) -> dict:
    """Two cuts to one time, by threshold and by worth: what is kept of the importance, and mAP repaired."""
    found = {"share": share}
    for name, flags in (("threshold", ()), ("knapsack", ("--knapsack",))):
        stem = f"{name}_{share:g}"
        made = stages.run(
            stem,
            *("test_prune.py", *network, *repair, "--score", "taylor", "--target-latency", share, *flags),
            *("--round_to", 8, "--cfg_out", work / f"{stem}.cfg", "--model_out", work / f"{stem}.pth"),
        )
        keys = ("importance_kept", "map50_folded", "map50_after", "macs_after", "params_after")
        found[name] = {key: made[key] for key in keys}
        found[name] |= {"time_ratio": made["latency_after"] / made["latency_before"]}
        print(stem, found[name])
    return found


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
