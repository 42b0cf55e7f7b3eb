"""The whole road on pictures that the program draws itself: generate, convert, then slim.py with its recipe
`slimming`.

    make demo            # or: python benchmarks/demo.py

Everything lands in runs/demo, with report.json. Training, sparsity training and finetuning keep their last
weights, and the test pictures choose nothing. An interrupted demo goes on where it stopped; a finished one is
kept beside the new one.
"""

from __future__ import annotations

import time
from pathlib import Path

from stages import ROOT, Stages

from darkslim import commands
from darkslim.base import files, records
from darkslim.report import machine

CFG = "config/yolov3-tiny-demo.cfg"


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--work", default="runs/demo", help="where everything goes")
    p.add_argument("--images", type=commands.count(10), default=1000, help="pictures to draw")
    p.add_argument("--epochs", type=commands.count(1), default=20, help="of the dense training")
    p.add_argument("--sparse_epochs", type=commands.count(1), default=8, help="of the sparsity training")
    p.add_argument("--finetune_epochs", type=commands.count(1), default=9, help="of the finetuning")
    p.add_argument("--rate", type=float, default=0.003, help="learning rate of every training")
    p.add_argument("--s", type=float, default=0.07, help="strength of the sparsity penalty")
    p.add_argument(
        "--percent", type=commands.fraction(), default=0.55, help="share of the prunable channels to cut"
    )
    return p


def main(args) -> dict:
    work = Path(args.work)
    put_aside(ROOT / work)
    stages, started = Stages(ROOT / work, args.seed), time.time()
    slimmed, tested = road(args, work, stages)
    report = summary(slimmed, tested, stages, args)
    show(report, pictures(work))
    files.save(ROOT / work / "report.json", records.to_json(report))
    print(f"\n{time.time() - started:.0f} s in all; report: {work / 'report.json'}")
    return report


def put_aside(work: Path) -> None:
    """Moves a finished demo to a free name, so that nothing of it is lost."""
    if (work / "report.json").exists():
        number = 1
        while work.with_name(f"{work.name}-{number}").exists():
            number += 1
        work.rename(work.with_name(f"{work.name}-{number}"))


def road(args, work: Path, stages: Stages) -> tuple[dict, dict]:
    """Runs the commands of the road; what slim.py and test.py report."""
    data = work / "data" / "oxfordhand.data"
    stages.run(
        "generate",
        "converter.py",
        "--generate",
        args.images,
        "--input",
        work / "hand_dataset",
        "--output",
        work / "data",
    )
    flags = {
        "--batch_size": 4,
        "-lr": args.rate,
        "--s": args.s,
        "--epochs": args.epochs,
        "--sparse_epochs": args.sparse_epochs,
        "--finetune_epochs": args.finetune_epochs,
        "--rate": args.percent,
        "--work": work / "slim",
    }
    slimmed = stages.run(
        "slim",
        "slim.py",
        "--model_def",
        CFG,
        "--data_config",
        data,
        "--recipe",
        "slimming",
        *(word for pair in flags.items() for word in pair),
    )
    tested = stages.run(
        "test",
        "test.py",
        "--model_def",
        slimmed["cfg"],
        "--data_config",
        data,
        "--weights_path",
        slimmed["weights"],
        "--figure",
        work / "precision_recall.png",
        "--examples",
        work / "examples.png",
    )
    return slimmed, tested


def summary(slimmed: dict, tested: dict, stages: Stages, args) -> dict:
    """The report: the keys that the interface names, and how it was made."""
    same = (
        "dense_map50",
        "sparse_map50",
        "pruned_map50",
        "params_before",
        "params_after",
        "macs_before",
        "macs_after",
        "latency_before",
        "latency_after",
        "max_abs_diff",
        "dose",
        "cfg",
        "weights",
    )
    return {
        **{key: slimmed[key] for key in same},
        "finetuned_map50": tested["map50"],
        "seconds": sum(filter(None, stages.seconds.values())),
        "stage_seconds": stages.seconds,
        "commands": stages.commands,
        "sources": stages.sources,
        "seed": args.seed,
        "machine": machine.describe(),
    }


def pictures(work: Path) -> list[Path]:
    """Every picture that the commands drew."""
    inputs = {"images", "hand_dataset"}
    drawn = (p.relative_to(ROOT / work) for p in (ROOT / work).rglob("*.png"))
    return sorted(work / p for p in drawn if not inputs & set(p.parts))


def show(report: dict, drawn: list[Path]) -> None:
    from terminaltables import AsciiTable

    r, stages = report, ("dense", "sparse", "pruned", "finetuned")
    shares = {key: r[f"{key}_after"] / r[f"{key}_before"] for key in ("params", "macs", "latency")}
    table = [
        ["", *stages],
        ["mAP50", *(f"{r[f'{stage}_map50']:.4f}" for stage in stages)],
        [
            "parameters",
            f"{r['params_before']:,}",
            "",
            f"{r['params_after']:,}",
            f"-{1 - shares['params']:.1%}",
        ],
        [
            "MACs",
            f"{r['macs_before'] / 1e6:.1f} M",
            "",
            f"{r['macs_after'] / 1e6:.1f} M",
            f"-{1 - shares['macs']:.1%}",
        ],
        [
            "latency",
            f"{1e3 * r['latency_before']:.1f} ms",
            "",
            f"{1e3 * r['latency_after']:.1f} ms",
            f"{1 / shares['latency']:.2f} times as fast",
        ],
    ]
    print("\n" + AsciiTable(table).table)
    print("\npictures: " + "\n          ".join(str(p) for p in drawn))
    print(f"pruned network: {r['cfg']} with {r['weights']}")


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
