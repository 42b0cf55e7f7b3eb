"""Slimming on real pictures: BCCD blood cells, yolov3-tiny at 416, from scratch to pruned and finetuned.

    python benchmarks/bccd.py --source ../shared/data/bccd --json docs/results/bccd.json

Trains on trainval (292 images) and measures on test (72), which chooses nothing: every stage keeps its last
weights, and nothing is evaluated during training. Each stage is a command as a user would type it; a stage
whose JSON lies in the working folder is not run again, so that the benchmark can be stopped at any time and
continued.
"""

from __future__ import annotations

from pathlib import Path

from stages import Stages

from darkslim import commands
from darkslim.report import machine

DATA = "config/bccd.data"


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--source", default="../shared/data/bccd", help="the data set in VOC layout")
    p.add_argument("--work", default="runs/bccd", help="folder of the stages")
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--epochs", type=commands.count(1), default=60, help="of the dense training")
    p.add_argument("--sparse_epochs", type=commands.count(1), default=30, help="of the sparsity training")
    p.add_argument("--finetune_epochs", type=commands.count(1), default=30, help="of each finetuning")
    p.add_argument("--batch_size", type=commands.count(1), default=8, help="images a step")
    p.add_argument("--rate", type=float, default=0.002, help="learning rate of every training")
    p.add_argument("--s", type=float, default=0.15, help="strength of the sparsity penalty")
    p.add_argument(
        "--percents",
        type=float,
        nargs="+",
        default=[0.6, 0.75],
        help="shares of the prunable channels to cut",
    )
    p.add_argument(
        "--control", action="store_true", help="also train the smallest pruned network from random weights"
    )
    return p


def main(args) -> dict:
    work = Path(args.work)
    stages = Stages(work, args.seed)
    stages.run("convert", "converter.py", "--format", "voc", "--input", args.source, "--output", "data/bccd")
    train = [
        "train.py",
        "--data_config",
        DATA,
        "--batch_size",
        args.batch_size,
        "-lr",
        args.rate,
        "--evaluation_interval",
        0,
        "--keep",
        "last",
        "--vflip",
        0.5,
        "--logdir",
        work / "logs",
    ]
    dense, sparse = work / "dense.pth", work / "sparse.pth"
    trained = {
        "dense": stages.run(
            "dense", *train, "--model_def", args.model_def, "--epochs", args.epochs, "--checkpoint", dense
        )
    }
    trained["sparse"] = stages.run(
        "sparse",
        *train,
        "--model_def",
        args.model_def,
        "--epochs",
        args.sparse_epochs,
        "-pre",
        dense,
        "--checkpoint",
        sparse,
        "-sr",
        "--s",
        args.s,
    )
    rows = [
        measure(stages, "dense", args.model_def, dense),
        measure(stages, "sparse", args.model_def, sparse),
    ]
    for percent in args.percents:
        name = f"{round(100 * percent)}"
        cfg, cut, tuned = (
            work / f"prune_{name}.cfg",
            work / f"prune_{name}.pth",
            work / f"finetune_{name}.pth",
        )
        pruned = stages.run(
            f"prune_{name}",
            "test_prune.py",
            "--model_def",
            args.model_def,
            "--data_config",
            DATA,
            "--model",
            sparse,
            "--percent",
            percent,
            "--cfg_out",
            cfg,
            "--model_out",
            cut,
        )
        rows.append({"stage": f"pruned {percent}", **pick(pruned)})
        trained[f"finetune_{name}"] = stages.run(
            f"finetune_{name}",
            *train,
            "--model_def",
            cfg,
            "--epochs",
            args.finetune_epochs,
            "-pre",
            cut,
            "--checkpoint",
            tuned,
        )
        size = {k: v for k, v in pick(pruned).items() if k != "map50"}
        rows.append(
            {**measure(stages, f"finetuned_{name}", cfg, tuned), "stage": f"finetuned {percent}", **size}
        )
    if args.control:
        # the smallest network once more, from random weights: is it the pruning, or would any network of this
        # size do?
        fresh = work / "control.pth"
        trained["control"] = stages.run(
            "control", *train, "--model_def", cfg, "--epochs", args.epochs, "--checkpoint", fresh
        )
        rows.append(
            {**measure(stages, "control", cfg, fresh), "stage": f"control: {percent} from scratch", **size}
        )
    show(rows)
    return {
        "rows": rows,
        "dose": trained["sparse"].get("dose"),
        "commands": stages.commands,
        "seconds": stages.seconds,
        "seed": args.seed,
        "machine": machine.describe(),
    }


def measure(stages: Stages, name: str, cfg, weights) -> dict:
    """mAP of a checkpoint on the test split."""
    result = stages.run(
        f"test_{name}", "test.py", "--model_def", cfg, "--data_config", DATA, "--weights_path", weights
    )
    classes = {row["name"]: row["ap50"] for row in result["per_class"]}
    return {"stage": name, "map50": result["map50"], "map": result["map"], "per_class": classes}


def pick(pruned: dict) -> dict:
    """The columns of the table that pruning fills."""
    keys = (
        "params_before",
        "params_after",
        "macs_before",
        "macs_after",
        "latency_before",
        "latency_after",
        "max_abs_diff",
    )
    return {"map50": pruned["map50_after"], **{k: pruned[k] for k in keys}}


def show(rows: list[dict]) -> None:
    from terminaltables import AsciiTable

    table = [["stage", "mAP50", "parameters", "MACs", "latency ms"]]
    for r in rows:
        table.append(
            [
                r["stage"],
                f"{r['map50']:.4f}",
                f"{r['params_after']:,}" if "params_after" in r else "",
                f"{r['macs_after'] / 1e9:.3f} G" if "macs_after" in r else "",
                f"{1000 * r['latency_before']:.1f} -> {1000 * r['latency_after']:.1f}"
                if "latency_after" in r
                else "",
            ]
        )
    print(AsciiTable(table).table)


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
