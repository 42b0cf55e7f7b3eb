"""Full-size published networks, cut by `slim` at three ratios: how exact, how fast, and does another program
read the files.

    python benchmarks/families.py --json docs/results/families.json

Gammas and betas are random, of both signs, so that every constant that is left behind counts. For each
network and ratio: parameters and MACs, the difference of compact and masked network in float64 by each way of
folding, and seconds for graph, plan and surgery. The files are written, reloaded and compared bit by bit;
then OpenCV reads the fused file and its head maps are compared with ours, and with those of the original file
as a measure of what OpenCV's own arithmetic costs.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from stages import ROOT

from darkslim import commands
from darkslim.network import profile
from darkslim.network.cfg import read_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.pruning.fuse import fuse
from darkslim.pruning.plan import masked, plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import fold_differences, prove, save_proven
from darkslim.report import machine

sys.path.insert(0, str(ROOT / "tests"))
NAMES = (
    "yolov3",
    "yolov3-spp",
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "yolov4",
    "yolov4-tiny",
    "yolov4-csp",
    "yolov7-tiny",
    "enet-coco",
    "csresnext50-panet-spp",
)


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--networks", nargs="+", default=NAMES, help="names in config/")
    p.add_argument(
        "--percents",
        type=float,
        nargs="+",
        default=[0.3, 0.6, 0.9],
        help="shares of the prunable channels to cut",
    )
    p.add_argument("--strategy", default="slim", help="of test_prune.py")
    return p


def main(args) -> dict:
    torch.manual_seed(args.seed)
    rows = []
    for name in args.networks:
        model, classes, protected = full_size(name, args.seed, args.strategy)
        base = compare_opencv(model, fuse(model))
        for percent in args.percents:
            rows.append(
                {
                    "cfg": name,
                    "percent": percent,
                    "layers": len(model.graph.nodes),
                    "classes": classes,
                    "protected": protected,
                    **one(model, percent, args),
                    "opencv_original": base,
                }
            )
            show(rows[-1])
    return {"rows": rows, "strategy": args.strategy, "seed": args.seed, "machine": machine.describe()}


def full_size(name: str, seed: int, strategy: str):
    """The network with random parameters; how many channel classes it has, and how many of those that
    convolutions make are protected.
    """
    from random_cfgs import randomise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomise(Darknet(read_cfg(ROOT / "config" / f"{name}.cfg")), seed)
    channels = Channels(model.graph)
    return model, channels.count, len(channels.producers) - len(channels.prunable(strategy))


def one(model: Darknet, percent: float, args) -> dict:
    """One ratio of one network."""
    start = time.perf_counter()
    Graph(model.cfg)
    graphed = time.perf_counter()
    decision = plan(model, percent, args.strategy)
    planned = time.perf_counter()
    compact = apply(model, decision)
    done = time.perf_counter()
    proof = prove(model, decision, compact, seed=args.seed)
    before, after = profile.count(model.graph), profile.count(compact.graph)
    with tempfile.TemporaryDirectory() as folder:
        save_proven(compact, *(Path(folder) / f"net.{end}" for end in ("cfg", "pth", "weights")))
        counted = profile.count(Graph(read_cfg(Path(folder) / "net.cfg")))
    return {
        "cut": decision.cut,
        "prunable": decision.prunable,
        "params_before": before.params,
        "params_after": counted.params,
        "macs_before": before.macs,
        "macs_after": counted.macs,
        "counts_agree": counted == after,
        "carriers": sum(compact.graph.nodes[n].shape[0] - int(k.sum()) for n, k in decision.keep.items()),
        "proof": proof.error,
        "differences": fold_differences(model, decision, seed=args.seed),
        "seconds": done - start,
        "seconds_graph": graphed - start,
        "seconds_plan": planned - graphed,
        "seconds_surgery": done - planned,
        "opencv": compare_opencv(masked(model, decision), fuse(compact)),
    }


def compare_opencv(expected: Darknet, written: Darknet) -> float | None:
    """Largest difference of OpenCV's head maps of a written network from ours of another, of the largest
    value; None: it cannot read it.
    """
    import cv2

    x = np.random.default_rng(0).random((1, *written.graph.input_shape), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"net.{end}" for end in ("cfg", "pth", "weights")]
        save_proven(written, *paths)
        try:
            net = cv2.dnn.readNetFromDarknet(str(paths[0]), str(paths[2]))
        except cv2.error:
            return None
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableWinograd(False)  # costs a digit
    net.setInput(x)
    theirs = net.forward([f"permute_{head.index}" for head in written.heads])
    with torch.inference_mode():
        ours = [
            raw.permute(0, 2, 3, 1, 4).flatten(3).numpy()
            for raw in expected.double().raw_heads(torch.from_numpy(x).double())
        ]
    expected.float()
    return float(
        max(np.abs(a - b).max() for a, b in zip(theirs, ours, strict=True))
        / max(np.abs(m).max() for m in ours)
    )


def show(row: dict) -> None:
    d = row["differences"]
    opencv = "cannot read" if row["opencv"] is None else f"{row['opencv']:.1e} ({row['opencv_original']:.1e})"
    print(
        f"{row['cfg']:22} {row['percent']:.0%} {row['classes']:6} classes, {row['protected']:5} protected  "
        f"{row['params_after']:>11,} "
        f"parameters {row['macs_after'] / 1e9:7.3f} GMACs  exact {d['exact']:.1e} interior "
        f"{d['interior']:.1e} none {d['none']:.1e}  "
        f"{row['seconds']:.2f} s  OpenCV {opencv}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
