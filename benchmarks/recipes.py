"""Which recipe of slim.py keeps most, at equal MACs and equal epochs, over seeds: drawn hands, the demo's
network.

    python benchmarks/recipes.py --json docs/results/recipes.json

Every seed trains one dense network, from which every recipe starts; each spends the same epochs on it, on
sparsity training and finetuning together. The test pictures only measure: targets, epochs and strengths were
set beforehand, the strength of the penalty by scaling the demo's to the same dose. Runs lie in the working
folder as slim.py leaves them, so that the benchmark can be stopped at any time and continued.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages import ROOT, Stages

from darkslim import commands
from darkslim.base.errors import DarkslimError
from darkslim.report.tables import right

CFG = "config/yolov3-tiny-demo.cfg"
RECIPES = ("slimming", "slimming-iterative", "depgraph", "taylor")


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--work", default="runs/recipes", help="folder of all runs")
    p.add_argument("--images", type=commands.count(10), default=1000, help="pictures to draw")
    p.add_argument("--seeds", type=commands.count(1), default=3, help="how many seeds")
    p.add_argument(
        "--targets", type=float, nargs="+", default=[0.35, 0.2], help="shares of the MACs to end with"
    )
    p.add_argument("--epochs", type=commands.count(1), default=20, help="of the dense training")
    p.add_argument("--budget", type=commands.count(8), default=12, help="epochs of every recipe after that")
    p.add_argument("--rate", type=float, default=0.003, help="learning rate of every training")
    p.add_argument("--s", type=float, default=0.093, help="strength of the sparsity penalty")
    p.add_argument(
        "--jobs",
        type=commands.count(1),
        default=os.cpu_count() or 1,
        help="runs beside each other, one thread each",
    )
    return p


def main(args) -> dict:
    os.environ["OMP_NUM_THREADS"] = "1"  # runs stand beside each other
    work, data = Path(args.work), Path(args.work) / "data" / "oxfordhand.data"
    stages = Stages(ROOT / work, args.seed)
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
    seeds = range(args.seed, args.seed + args.seeds)
    jobs = [("dense", seed, None, None) for seed in seeds]
    jobs += [
        ("slim", seed, target, recipe)
        for seed, target, recipe in itertools.product(seeds, args.targets, RECIPES)
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        dense = {job[1]: pool.submit(run, args, work, data, *job) for job in jobs if job[0] == "dense"}
        slim = {
            job[1:]: pool.submit(after, dense[job[1]], args, work, data, *job)
            for job in jobs
            if job[0] == "slim"
        }
        networks = {seed: future.result() for seed, future in dense.items()}
        rows = [row(key, future.result()) for key, future in slim.items()]
    table = summary(rows)
    show(networks, table)
    return {
        "rows": rows,
        "summary": table,
        "dense": {seed: r["map50"] for seed, r in networks.items()},
        "epochs_dense": args.epochs,
        "epochs_after": args.budget,
        "seeds": list(seeds),
        "commands": {str(key): line(args, work, data, "slim", *key) for key in list(slim)[: len(RECIPES)]},
    }


def after(dense, *job) -> dict:
    """A run that needs the dense network of its seed."""
    dense.result()
    return run(*job)


def line(
    args, work: Path, data: Path, kind: str, seed: int, target: float | None, recipe: str | None
) -> list[str]:
    """The words of one run, as a user would type them."""
    common = [
        "--model_def",
        CFG,
        "--data_config",
        data,
        "--batch_size",
        4,
        "-lr",
        args.rate,
        "--n_cpu",
        0,
        "--seed",
        seed,
    ]
    dense = work / f"dense-{seed}.pth"
    if kind == "dense":
        words = [
            "train.py",
            *common,
            "--epochs",
            args.epochs,
            "--evaluation_interval",
            0,
            "--keep",
            "last",
            "--checkpoint",
            dense,
            "--logdir",
            work / "logs",
        ]
    else:
        press = args.budget // 2 if recipe.startswith("slimming") else 0
        words = [
            "slim.py",
            *common,
            "--recipe",
            recipe,
            "--target-macs",
            target,
            "--weights",
            dense,
            "--s",
            args.s,
            "--sparse_epochs",
            press,
            "--finetune_epochs",
            args.budget - press,
            "--work",
            work / f"{recipe}-{target:g}-{seed}",
        ]
    return [str(w) for w in words]


def run(args, work: Path, data: Path, kind: str, seed: int, target: float | None, recipe: str | None) -> dict:
    """One training or slim run, unless its JSON lies there."""
    name = f"dense-{seed}" if kind == "dense" else f"{recipe}-{target:g}-{seed}"
    done, log = ROOT / work / f"{name}.result.json", ROOT / work / f"{name}.log"
    if not done.exists():
        words = line(args, work, data, kind, seed, target, recipe)
        if kind == "dense" and (ROOT / work / f"dense-{seed}.last.pth").exists():
            words.append("--resume")
        with open(log, "a") as out:
            code = subprocess.run(
                [sys.executable, *words, "--json", str(done)], cwd=ROOT, stdout=out, stderr=out
            ).returncode
        if code:
            raise DarkslimError(name, f"the command exited {code}", remedy=f"see {log}")
        print(f"{name}: done", flush=True)
    return json.loads(done.read_text())


def row(key: tuple, result: dict) -> dict:
    seed, target, recipe = key
    final = result["steps"][-1]
    return {
        "recipe": recipe,
        "target": target,
        "seed": seed,
        "dense": result["dense_map50"],
        "pruned": final["map50_pruned"],
        "recovered": result["final_map50"],
        "params": result["params_after"],
        "macs": result["macs_after"],
        "macs_before": result["macs_before"],
        "params_before": result["params_before"],
        "seconds": result["seconds"],
        "steps": [
            {k: s[k] for k in ("step", "macs", "params", "map50_pruned", "map50_recovered")}
            for s in result["steps"]
        ],
    }


def summary(rows: list[dict]) -> list[dict]:
    """Mean and spread (half of largest minus least) over seeds, of every recipe at every target."""
    found = []
    for target, recipe in dict.fromkeys((r["target"], r["recipe"]) for r in rows):
        mine = [r for r in rows if (r["target"], r["recipe"]) == (target, recipe)]
        entry = {"target": target, "recipe": recipe, "seeds": len(mine)}
        for key in ("pruned", "recovered", "params", "macs", "seconds"):
            values = [r[key] for r in mine]
            entry |= {key: statistics.mean(values), f"{key}_spread": (max(values) - min(values)) / 2}
        found.append(entry)
    return found


def show(networks: dict, table: list[dict]) -> None:
    print("dense mAP50: " + ", ".join(f"seed {seed} {r['map50']:.4f}" for seed, r in networks.items()))
    rows = [["recipe", "MACs left", "mAP50 pruned", "recovered", "parameters", "seconds"]]
    rows += [
        [
            r["recipe"],
            f"{r['target']:.0%}",
            f"{r['pruned']:.3f} +- {r['pruned_spread']:.3f}",
            f"{r['recovered']:.3f} +- {r['recovered_spread']:.3f}",
            f"{r['params']:,.0f}",
            f"{r['seconds']:.0f}",
        ]
        for r in table
    ]
    print(right(rows))


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
