"""From a trained network to what is deployed, on real pictures: cut, reconstructed, exported, in 8 bits.

    python benchmarks/deployed.py --json docs/results/deployed.json

Every stage is a command as a user would type it, and is not run again. mAP is that of the exported files,
run by their own programs on `valid`, which chooses nothing; times are those of benchmarks/engines.py, all
in one run, decoding and suppression included: at the threshold of mAP, .01, and at that of detect.py, .25.
--knapsack compares two ways to fill a budget of time: a
threshold on scores, and blocks of channels by what they are worth for what they cost, at an equal target.
--int8_epochs also trains the cut networks for 8 bits, whose float32 is then another network.
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
    p.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.15], help="of the MACs, left")
    p.add_argument("--score", default="repair", help="of the cut")
    p.add_argument(
        "--engine", default="openvino-int8", help="in which widths are rounded and budgets are met"
    )
    p.add_argument("--batches", type=commands.count(1), default=8, help="that repair, 16 pictures each")
    p.add_argument("--int8_epochs", type=commands.count(0), default=5, help="that train for 8 bits; 0: none")
    p.add_argument("--rate", type=float, default=0.0002, help="learning rate of these")
    p.add_argument("--turns", type=commands.count(3), default=5, help="of each engine")
    p.add_argument("--knapsack", type=float, nargs="*", default=[], help="shares of the time to compare at")
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(work, args.seed)
    data = ["--data_config", args.data_config]
    network = ["--model_def", args.model_def, "--model", args.model, *data, "--strategy", "slim"]
    repair = ["--reconstruct", args.batches, "--engine", args.engine]
    found = {"dense": (args.model_def, args.model)}
    sizes = {}
    for share in args.shares:
        name, stem = f"{share:.0%}", work / f"slim_{share:g}"
        files = ["--cfg_out", f"{stem}.cfg", "--model_out", f"{stem}.pth"]
        words = [*network, *repair, "--score", args.score, "--target-macs", share, "--round_to", "auto"]
        made = stages.run(stem.name, "test_prune.py", *words, *files)
        found[name] = (f"{stem}.cfg", f"{stem}.pth")
        for when, key in (("before", "dense"), ("after", name)):
            sizes[key] = {"params": made[f"params_{when}"], "macs": made[f"macs_{when}"]}
        sizes[name]["round_to"] = made["round_to"]
    rows = []
    for name, (cfg, weights) in found.items():
        rows += exported(stages, work, name, cfg, weights, data, plain=True)
        if args.int8_epochs and name != "dense":
            trained = work / f"int8_{Path(weights).name}"
            words = ["--model_def", cfg, "-pre", weights, *data, "--checkpoint", trained, "--int8"]
            words += ["--epochs", args.int8_epochs, "-lr", args.rate, "--batch_size", 8, "--keep", "last"]
            words += ["--evaluation_interval", 0, "--logdir", work / "logs"]
            after = stages.run(trained.stem, "train.py", *words)
            rows.append({"network": name, "precision": "float32, trained for int8", "map50": after["map50"]})
            rows += exported(stages, work, name, cfg, trained, data, plain=False)
    measured = engines.main(
        argparse.Namespace(
            network=[f"{n}={c},{w},{work / f'{Path(w).stem}_int8.onnx'}" for n, (c, w) in found.items()],
            engines=list(engines.NAMES),
            batches=[1],
            turns=args.turns,
            conf_thres=[0.01, 0.25],
            data_config=args.data_config,
            seed=args.seed,
        )
    )
    budgets = [at_equal_time(stages, work, network, repair, share) for share in args.knapsack]
    print(right([["network", "precision", "mAP50", "bytes"], *(shown(row) for row in rows)]))
    times = {(row["network"], row["engine"]): row for row in measured["rows"] if "seconds" in row}
    eager = times["dense", "torch"]["with_nms"]
    for (name, engine), row in times.items():
        row["from_eager"] = {at: eager[at] / took for at, took in row["with_nms"].items()}
        row["suppression"] = {at: took / row["seconds"] - 1 for at, took in row["with_nms"].items()}
        said = " ".join(f"{ratio:5.1f}" for ratio in row["from_eager"].values())
        print(f"{name:6} {engine:18} {said} times faster than dense in PyTorch, end to end")
    ran = {"commands": stages.commands, "sources": stages.sources}
    return {"sizes": sizes, "precisions": rows, "knapsack": budgets, **ran, **measured}


def exported(stages: Stages, work: Path, name: str, cfg, weights, data: list, plain: bool) -> list[dict]:
    """Rows of the ONNX files of a network, in float32 and in 8 bits; these also as OpenVINO runs them."""
    rows, stem, trained = [], Path(weights).stem, "" if plain else ", trained for it"
    for kind, flags in ((("float32", ()),) if plain else ()) + (("int8", ("--int8",)),):
        out = work / f"{stem}_{kind}.onnx"
        words = ["export.py", "--model_def", cfg, "--weights", weights, *data, "--out", out, *flags]
        made = stages.run(out.stem, *words)
        row = {"network": name, "precision": kind + trained, "map50": made["map50_exported"]}
        rows.append(row | {"bytes": made["bytes"], "kept_float": made.get("kept_float", [])})
        if kind == "float32" and engines.has_bf16():
            words = ["test.py", "--engine", "openvino-bf16", *data, "--exported", out]
            checked = stages.run(f"{stem}_bf16", *words)
            rows.append({"network": name, "precision": "bfloat16 in OpenVINO", "map50": checked["map50"]})
    words = ["test.py", "--exported", out, "--engine", "openvino", *data]
    checked = stages.run(f"{stem}_openvino", *words)
    rows.append({"network": name, "precision": f"int8 in OpenVINO{trained}", "map50": checked["map50"]})
    return rows


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
