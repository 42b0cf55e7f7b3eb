"""Which strategy, way of folding and score keeps most mAP at equal MACs, before any finetuning.

    python benchmarks/strategies.py --json docs/results/strategies.json

Three networks as benchmarks/accuracy.py sparsified them, seed 0: yolov3-tiny on BCCD, yolov3-nano on BCCD
(YOLOv3's shape with its residual chains, an eighth as wide) and the demo's. Two of them have no shortcuts, so
that all strategies cut the same of them. Recalibration takes training pictures; the test pictures only
measure, and choose nothing.
"""

from __future__ import annotations

import gc
from itertools import islice

import numpy as np
from stages import ROOT

from darkslim import commands, evaluation
from darkslim.data import datafile
from darkslim.data.loader import make_loader
from darkslim.data.plain import plain_dataset
from darkslim.network import checkpoints, profile
from darkslim.network.channels import STRATEGIES
from darkslim.network.darknet import Darknet
from darkslim.network.twins import twin
from darkslim.pruning.budget import Target
from darkslim.pruning.importance import SCORES, Context
from darkslim.pruning.plan import FOLDS, plan
from darkslim.pruning.recalibrate import recalibrate
from darkslim.pruning.surgery import apply

NETWORKS = {  # name -> cfg, folder of accuracy.py, data set
    "yolov3-tiny on BCCD": ("config/yolov3-tiny-bccd.cfg", "runs/accuracy_bccd", "config/bccd.data"),
    "yolov3-nano on BCCD": ("config/yolov3-nano-bccd.cfg", "runs/accuracy_nano", "config/bccd.data"),
    "the demo's, on drawn hands": (
        "config/yolov3-tiny-demo.cfg",
        "runs/accuracy_demo",
        "runs/accuracy_demo/data/oxfordhand.data",
    ),
}
BATCHES, SIZE = 8, 16  # of training pictures, for recalibration and for the Taylor score


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument(
        "--targets", type=float, nargs="+", default=[0.6, 0.45, 0.3], help="shares of the MACs to end with"
    )
    p.add_argument("--score_target", type=float, default=0.45, help="the one at which scores are compared")
    return p


def main(args) -> dict:
    before, rows, scores = {}, [], []
    for name, (cfg, work, data) in NETWORKS.items():
        bench = Bench(cfg, f"{work}/seed0/sparse.pth", data, args.seed)
        before[name] = {
            "map50": bench.score(bench.model),
            "macs": profile.count(bench.model.graph).macs,
            "model_def": cfg,
        }
        print(
            f"\n{name}: mAP50 {before[name]['map50']:.4f}, {before[name]['macs'] / 1e9:.3f} GMACs", flush=True
        )
        for target in args.targets:
            for strategy in STRATEGIES:
                for fold in FOLDS:
                    rows.append(
                        {"network": name, "target": target, **bench.cut(target, strategy, "gamma", fold)}
                    )
                    show(rows[-1])
        for score in SCORES:
            scores.append(
                {
                    "network": name,
                    "target": args.score_target,
                    **bench.cut(args.score_target, "group", score, "exact"),
                }
            )
            show(scores[-1])
        del bench
        gc.collect()
    return {
        "before": before,
        "rows": rows,
        "scores": scores,
        "recalibrated_on": BATCHES * SIZE,
        "seed": args.seed,
    }


class Bench:
    """One sparsified network with its pictures. Plans that come out equal are measured once."""

    def __init__(self, cfg, checkpoint, data_file, seed: int):
        self.model = Darknet(str(ROOT / cfg))
        checkpoints.load_checkpoint(ROOT / checkpoint, self.model)
        self.model.eval()
        self.seed, self.known = seed, {}
        data = datafile.read_data(data_file)
        self.valid = make_loader(plain_dataset(self.model, data, "valid"), SIZE, workers=1, seed=seed)
        train = make_loader(
            plain_dataset(self.model, data, "train"), SIZE, shuffle=True, seed=seed, drop_last=True
        )
        self.batches = list(islice(train, BATCHES))

    def score(self, model: Darknet) -> float:
        """mAP50 on the test pictures."""
        return evaluation.evaluate(model, self.valid, coco=False).map50

    def cut(self, target: float, strategy: str, score: str, fold: str) -> dict:
        """mAP as folded, and with batch norms re-estimated."""
        decision = plan(
            self.model,
            strategy=strategy,
            score=score,
            fold=fold,
            target=Target("macs", target),
            context=Context(self.seed, self.batches),
        )
        key = (fold, *(np.packbits(k).tobytes() for k in decision.keep.values()))
        if key not in self.known:
            compact = apply(self.model, decision, fold)
            again = twin(compact)
            recalibrate(again, self.batches)
            counted = profile.count(compact.graph)
            self.known[key] = {
                "map50": self.score(compact),
                "map50_recalibrated": self.score(again),
                "params": counted.params,
                "macs": counted.macs,
                "cut": decision.cut,
                "prunable": decision.prunable,
            }
        return {
            "strategy": strategy,
            "score": score,
            "fold": fold,
            "reached": decision.reached / decision.wanted,
            **self.known[key],
        }


def show(row: dict) -> None:
    print(
        f"  {row['target']:.2f} of the MACs ({row['reached']:.3f} reached), {row['strategy']:8} "
        f"{row['score']:8} {row['fold']:8}: "
        f"mAP50 {row['map50']:.4f}, recalibrated {row['map50_recalibrated']:.4f}; {row['params']:,} "
        "parameters",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
