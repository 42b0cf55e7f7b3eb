"""What two of Darknet's rules in the loss are worth: training with and without each, over seeds.

    python benchmarks/loss_rules.py --json docs/results/loss_rules.json

- ignore: background objectness is left out at boxes that overlap a truth only where some class has a
  probability above .25; without it, wherever they overlap.
- share: truths that claim the same cell all pull at its box, divided by the number of their classes; without
  it the last one in the list has it alone.

yolov3-tiny on BCCD, whose blood cells lie close together, at a smaller input. It trains on the list `train`
and is measured on `val`, parts of what the project trains on elsewhere: the test pictures choose nothing.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from stages import ROOT

from darkslim import commands

RULES = {"neither": (0.0, False), "ignore": (0.25, False), "share": (0.0, True), "both": (0.25, True)}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--work", default="runs/loss_rules", help="folder of all runs")
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--data", default="data/bccd", help="folder of train.txt, val.txt and bccd.names")
    p.add_argument("--img_size", type=commands.count(32), default=224, help="side of the input in pixels")
    p.add_argument("--epochs", type=commands.count(1), default=30, help="of every training")
    p.add_argument("--seeds", type=commands.count(1), default=3, help="how many seeds")
    p.add_argument("--jobs", type=commands.count(1), default=os.cpu_count() or 1, help="runs at a time")
    return p


def main(args) -> dict:
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # runs stand beside each other
    Path(args.work).mkdir(parents=True, exist_ok=True)
    lists = {"train": "train.txt", "valid": "val.txt", "names": "bccd.names"}
    text = "classes=3\n" + "".join(f"{key}={args.data}/{name}\n" for key, name in lists.items())
    (Path(args.work) / "val.data").write_text(text)
    jobs = list(itertools.product(range(args.seed, args.seed + args.seeds), RULES))
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(one, [vars(args)] * len(jobs), jobs))
    table = {}
    for rule in RULES:
        values = [row["map50"] for row in rows if row["rule"] == rule]
        table[rule] = {"map50": statistics.mean(values), "spread": (max(values) - min(values)) / 2}
        print(f"{rule:8} mAP50 {table[rule]['map50']:.4f} +- {table[rule]['spread']:.4f}")
    return {"rows": rows, "summary": table, "epochs": args.epochs, "img_size": args.img_size}


def one(args: dict, job: tuple[int, str]) -> dict:
    """One training, or what it left; in a process of its own, since the rules are set in the module."""
    import torch

    from darkslim.pipelines import TrainSettings, train
    from darkslim.training import loss

    torch.set_num_threads(1)
    seed, rule = job
    stem = Path(args["work"]) / f"{rule}-{seed}"
    done = stem.with_suffix(".json")
    if not done.exists():
        loss.IGNORE_ABOVE, loss.SHARE = RULES[rule]
        settings = TrainSettings(
            **{key: args[key] for key in ("model_def", "img_size", "epochs", "device")},
            data_config=str(Path(args["work"]) / "val.data"),
            batch_size=8,
            seed=seed,
            n_cpu=0,
            keep="last",
            evaluation_interval=args["epochs"],
            checkpoint=str(stem.with_suffix(".pth")),
            logdir=str(Path(args["work"]) / "logs"),
        )
        result = train(settings)
        done.write_text(json.dumps({key: result[key] for key in ("map50", "seconds")}))
        print(f"{rule}, seed {seed}: {result['map50']:.4f}", flush=True)
    return {"rule": rule, "seed": seed, **json.loads(done.read_text())}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
