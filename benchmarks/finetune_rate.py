"""At which learning rate a cut network is finetuned: the cfg's, shares of it, and what train.py takes itself.

    python benchmarks/finetune_rate.py --json docs/results/finetune_rate.json

On the cuts that `benchmarks/accuracy.py --demo` leaves (run it before): drawn hands, cut to 15% of the
multiply-adds after sparsity training and without it. The last weights are kept, so that `valid` measures and
chooses nothing; the demo's own settings were found on such pictures.
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

from accuracy import DEMO
from stages import ROOT, Stages

from darkslim import commands
from darkslim.network.cfg import read_cfg
from darkslim.report.tables import right

OWN = "default"  # what train.py takes itself
CUTS = {"pressed": "sparse_auto_0.15", "not pressed": "oneshot_0.15"}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--cuts", default=DEMO["work"], help="folder of accuracy.py, one a seed in it")
    p.add_argument("--data_config", default=DEMO["data_config"], help="its data set")
    p.add_argument("--work", default="runs/finetune_rate", help="folder of the stages")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of accuracy.py")
    p.add_argument("--epochs", type=commands.count(1), nargs="+", default=[2, 9], help="of each finetuning")
    p.add_argument("--shares", nargs="+", default=["1", "0.3", "0.1", OWN], help="of the cfg's rate")
    p.add_argument("--batch_size", type=commands.count(1), default=DEMO["batch_size"], help="images a step")
    return p


def main(args) -> dict:
    rows, told = [], {"commands": {}, "seconds": {}, "sources": {}}
    for seed in args.seeds:
        stages = Stages(ROOT / args.work / f"seed{seed}", seed)
        for (kind, cut), epochs in itertools.product(CUTS.items(), args.epochs):
            for share in args.shares:
                rows.append({"seed": seed, "cut": kind} | one(args, stages, cut, epochs, share))
        for key in told:
            told[key][seed] = getattr(stages, key)
    table = summary(rows)
    print(right([list(table[0]), *[[str(v) for v in row.values()] for row in table]]))
    return {"summary": table, "rows": rows, **told}


def one(args, stages: Stages, cut: str, epochs: int, share: str) -> dict:
    """One finetuning: at a share of the cfg's rate, or at what train.py takes."""
    base = Path(args.cuts) / f"seed{stages.seed}" / cut
    cfg, weights = base.with_name(f"{cut}.cfg"), base.with_name(f"{cut}.pth")
    name = f"{cut}, {epochs} epochs, {share}"
    words = ["--model_def", cfg, "-pre", weights, "--data_config", args.data_config]
    words += ["--checkpoint", Path(args.work) / f"seed{stages.seed}" / f"{name}.pth", "--epochs", epochs]
    words += ["--batch_size", args.batch_size, "--keep", "last", "--evaluation_interval", 0]
    words += ["--logdir", Path(args.work) / "logs", "--device", args.device]
    if share != OWN:
        words += ["-lr", f"{float(share) * float(read_cfg(ROOT / cfg).net.get('learning_rate')):.3g}"]
    found = stages.run(name, "train.py", *words)
    return {"epochs": epochs, "steps": found["steps"], "share": share, "map50": found["map50"]}


def summary(rows: list[dict]) -> list[dict]:
    """Mean and half the range over seeds of every cut, length and rate."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["cut"], row["epochs"], row["steps"], row["share"]), []).append(row)
    found = []
    for key, same in groups.items():
        scores = [row["map50"] for row in same]
        found.append(
            dict(zip(("cut", "epochs", "steps", "share"), key, strict=True))
            | {"seeds": len(same), "map50": statistics.mean(scores)}
            | {"map50_spread": (max(scores) - min(scores)) / 2}
        )
    return found


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
