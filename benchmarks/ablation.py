"""What each part of the training recipe is worth on a few hundred pictures: one changed at a
time, over seeds.

    python benchmarks/ablation.py --json docs/results/ablation.json

yolov3-tiny on BCCD at a smaller input, from random weights. It trains on the list `train` (205 pictures) and
is measured on `val`, parts of what the project trains on elsewhere: the test pictures choose nothing. Runs
stand beside each other, one thread each; a run that is done is not done again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from stages import ROOT

from darkslim import commands
from darkslim.report.tables import right

CIOU = {"mask=": "iou_loss=ciou\niou_normalizer=0.07\nmask="}
# name -> (settings of train that are changed, texts of the cfg that are replaced); epochs: times --epochs
CHANGES: dict[str, tuple[dict, dict[str, str]]] = {
    "defaults": ({}, {}),
    "epochs x 2": ({"epochs": 2}, {}),
    "epochs x 4": ({"epochs": 4}, {}),
    "batch 4": ({"batch_size": 4}, {}),
    "batch 8": ({"batch_size": 8}, {}),
    "batch 32": ({"batch_size": 32}, {}),
    "rate x 0.5": ({"learning_rate": 0.001}, {}),
    "rate x 2": ({"learning_rate": 0.004}, {}),
    "rate x 4": ({"learning_rate": 0.008}, {}),
    "rate x 8": ({"learning_rate": 0.016}, {}),
    "schedule steps": ({"schedule": "steps"}, {}),
    "no average": ({"ema": 0.0}, {}),
    "no warm-up": ({}, {"burn_in=100": "burn_in=0"}),
    "turned upside down": ({"vflip": 0.5}, {}),
    "mosaic": ({"mosaic": 0.5}, {}),
    "several sizes": ({"multiscale_training": True}, {}),
    "CIoU": ({}, CIOU),
    "label smoothing": ({}, {"mask=": "label_smooth_eps=0.1\nmask="}),
    "balanced classes": ({"balance": 1.0}, {}),
    "clipped gradient": ({"clip": 10.0}, {}),
}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--work", default="runs/ablation", help="folder of all runs")
    p.add_argument("--model_def", default="config/yolov3-tiny-bccd.cfg", help="the network")
    p.add_argument("--data", default="data/bccd", help="folder of train.txt, val.txt and one .names")
    p.add_argument("--img_size", type=commands.count(32), default=224, help="side of the input in pixels")
    p.add_argument("--epochs", type=commands.count(1), default=40, help="of every training")
    p.add_argument("--seeds", type=commands.count(1), default=2, help="how many seeds")
    p.add_argument("--only", nargs="+", default=list(CHANGES), help="names of changes")
    p.add_argument("--with", nargs="+", default=[], dest="together", help="changes that all runs share")
    p.add_argument("--jobs", type=commands.count(1), default=os.cpu_count() or 1, help="runs at a time")
    return p


def main(args) -> dict:
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # runs stand beside each other
    Path(args.work).mkdir(parents=True, exist_ok=True)
    names = next(Path(args.data).glob("*.names"))
    lists = {"train": "train.txt", "valid": "val.txt", "names": names.name}
    text = f"classes={len(names.read_text().split())}\n"
    text += "".join(f"{key}={args.data}/{name}\n" for key, name in lists.items())
    (Path(args.work) / "val.data").write_text(text)
    jobs = [(name, seed) for seed in range(args.seed, args.seed + args.seeds) for name in args.only]
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        rows = list(pool.map(one, [vars(args)] * len(jobs), jobs))
    summary = {}
    for name in args.only:
        values = [row["map50"] for row in rows if row["change"] == name]
        summary[name] = {"map50": statistics.mean(values), "spread": (max(values) - min(values)) / 2}
    best = sorted(summary.items(), key=lambda item: -item[1]["map50"])
    print(right([["", "mAP50", "+-"], *([n, f"{v['map50']:.4f}", f"{v['spread']:.4f}"] for n, v in best)]))
    return {"rows": rows, "summary": summary, "epochs": args.epochs, "img_size": args.img_size}


def one(args: dict, job: tuple[str, int]) -> dict:
    """One training, or what it left."""
    import torch

    from darkslim.pipelines import TrainSettings, train

    torch.set_num_threads(1)
    change, seed = job
    together = [*args["together"], change]
    name = f"{'+'.join(together)}-{args['epochs']}-{seed}".replace(" ", "_")
    done = Path(args["work"]) / f"{name}.json"
    if not done.exists():
        cfg = Path(args["model_def"]).read_text()
        changed: dict = {}
        for settings, texts in (CHANGES[c] for c in together):
            changed |= settings
            for old, new in texts.items():
                if old not in cfg:
                    raise ValueError(f"{args['model_def']} has no {old}")
                cfg = cfg.replace(old, new)
        model_def = done.with_suffix(".cfg")
        model_def.write_text(cfg)
        epochs = args["epochs"] * changed.pop("epochs", 1)
        result = train(
            TrainSettings(
                model_def=str(model_def),
                data_config=str(Path(args["work"]) / "val.data"),
                **{key: args[key] for key in ("img_size", "device")},
                epochs=epochs,
                seed=seed,
                n_cpu=0,
                keep="last",
                evaluation_interval=0,
                checkpoint_interval=0,
                checkpoint=str(done.with_suffix(".pth")),
                logdir=str(Path(args["work"]) / "logs"),
                **changed,
            )
        )
        kept = {key: result[key] for key in ("map50", "map", "steps", "seconds")}
        done.write_text(json.dumps(kept))
        print(f"{name}: {result['map50']:.4f}, {result['seconds']:.0f} s", flush=True)
    return {"change": change, "seed": seed, **json.loads(done.read_text())}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
