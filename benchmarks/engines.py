"""Networks in every engine: milliseconds at batch 1 and 8, and how much of the machine that is.

    python benchmarks/engines.py --network dense=config/yolov3-hand.cfg --network
        slim=config/prune.cfg,prune.weights \\ --json docs/results/engines.json

A network is NAME=CFG[,WEIGHTS[,INT8.onnx]]; without weights they are random, without a file of 8 bits one
is made with ranges from noise, whose boxes mean nothing and whose time is that of any other. Every engine
has a process of its own, for some of them do not bear each other; they take turns in an order that is
drawn anew, one working while the others sleep; networks follow each other in one run. A turn is as many
passes as fit into half a second and gives their median; `seconds` is the median of the turns and `spread`
half of its 95% interval as a share of it. `with_nms`: suppression included, by each of --conf_thres;
random weights let nearly all boxes pass, which is the most that it can cost.
`peak` is what benchmarks/peak.py finds, and `share` the share of it that the engine's multiplications
make, by the precision that it computes in.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from peak import peaks

from darkslim import commands, evaluation
from darkslim.base.errors import DarkslimError, RequestError
from darkslim.data import datafile
from darkslim.data.loader import make_loader
from darkslim.data.plain import plain_dataset
from darkslim.deploy import engines
from darkslim.deploy.engine_onnxruntime import OnnxRuntime
from darkslim.deploy.engine_openvino import OpenVino
from darkslim.latency.networks import spread
from darkslim.network import profile, weights
from darkslim.pruning.fuse import fuse
from darkslim.report import machine

NAMES = tuple(engines.TIMED)
REST, TURN = 0.25, 0.5  # seconds that threads of the last one may still spin, and of a turn


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--network", action="append", required=True, help="NAME=CFG[,WEIGHTS[,INT8.onnx]]")
    p.add_argument("--engines", nargs="+", choices=NAMES, default=list(NAMES), help="which")
    p.add_argument("--batches", type=commands.count(1), nargs="+", default=[1, 8], help="pictures at once")
    p.add_argument("--turns", type=commands.count(3), default=7, help="of each engine and batch")
    p.add_argument("--conf_thres", type=float, nargs="*", default=[0.25], help="of the suppression")
    p.add_argument("--data_config", default=None, help="whose first pictures of `valid` are taken, not noise")
    return p


def build(name: str, cfg: str, file: str | None, quantized: str | None):
    """The engine of a network, and the boxes of a picture."""
    warnings.simplefilter("ignore")
    model = weights.load_model(cfg, file)
    size = model.graph.input_shape[1:]
    if name == "torch":
        return model.eval()
    if name.endswith("int8") and quantized is not None:
        return (OnnxRuntime if name.startswith("onnx") else OpenVino)(quantized)
    return engines.build(name, fuse(model), size).eval()


def pictures(parts: list, data_config: str | None, count: int) -> torch.Tensor:
    """What a network is given: the first pictures of `valid` of its data set, or noise; (count, C, H, W)."""
    model = weights.load_model(parts[0], None)
    channels, *size = model.graph.input_shape
    if data_config is None:
        return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))
    dataset = plain_dataset(model, datafile.read_data(data_config), "valid")
    with make_loader(dataset, count, workers=0) as loader:
        images, _ = next(iter(loader))
    return images.float().div(255).repeat(-(-count // len(images)), 1, 1, 1)[:count]


def work(pipe, name: str, parts: list, given: np.ndarray, thresholds: list[float]) -> None:
    """A process: builds an engine, then times what it is asked for."""
    try:
        network = build(name, *parts)
    except DarkslimError as e:
        pipe.send(str(e))
        return
    pipe.send(None)
    while (batch := pipe.recv()) is not None:
        x = torch.from_numpy(given[:batch].copy())
        plain, whole = [], [[] for _ in thresholds]
        with torch.inference_mode():
            network(x)  # compiled for the shape, caches warm
            end = time.perf_counter() + TURN
            while time.perf_counter() < end or len(plain) < 2:
                began = time.perf_counter()
                boxes = network(x)
                plain.append(time.perf_counter() - began)
                for threshold, took in zip(thresholds, whole, strict=True):
                    middle = time.perf_counter()
                    evaluation.detections(boxes, threshold)
                    took.append(plain[-1] + time.perf_counter() - middle)
        pipe.send([statistics.median(took) for took in (plain, *whole)])


def measure(name: str, parts: list, args) -> list[dict]:
    """One network in all engines."""
    context = multiprocessing.get_context("spawn")
    workers, absent = {}, {}
    given = pictures(parts, args.data_config, max(args.batches)).numpy()
    for engine in args.engines:
        here, there = context.Pipe()
        process = context.Process(
            target=work, args=(there, engine, parts, given, args.conf_thres), daemon=True
        )
        process.start()
        there.close()  # so that the end of the process is the end of the pipe
        if (problem := here.recv()) is not None:  # one after another: building takes all cores
            absent[engine] = problem
            print(f"{name}: {engine}: {problem}", flush=True)
            continue
        workers[engine] = (process, here)
    jobs = [(engine, batch) for engine in workers for batch in args.batches]
    times: dict[tuple[str, int], list[list[float]]] = {job: [] for job in jobs}
    draw = random.Random(args.seed)
    for turn in commands.progress(range(args.turns + 1), desc=name):
        for engine, batch in draw.sample(jobs, len(jobs)):
            time.sleep(REST)
            pipe = workers[engine][1]
            pipe.send(batch)
            took = pipe.recv()
            if turn:  # the first compiles
                times[engine, batch].append(took)
    for process, pipe in workers.values():
        pipe.send(None)
        process.join()
    graph = weights.load_model(parts[0], None).graph
    counted = profile.count(graph)
    rows = []
    for (engine, batch), found in times.items():
        plain, *whole = ([took[i] for took in found] for i in range(1 + len(args.conf_thres)))
        seconds = statistics.median(plain)
        row = {"network": name, "engine": engine, "batch": batch, "seconds": seconds, "spread": spread(plain)}
        row |= {"macs": counted.macs, "params": counted.params}
        both = zip(args.conf_thres, whole, strict=True)
        row["with_nms"] = {f"{threshold:g}": statistics.median(took) for threshold, took in both}
        row["operations"] = 2 * counted.macs * batch / seconds
        rows.append(row)
    return rows + [{"network": name, "engine": engine, "absent": why} for engine, why in absent.items()]


def has_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 here."""
    try:
        import openvino
    except ImportError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def kind(engine: str) -> str:
    """The precision that an engine computes in."""
    return "int8" if engine.endswith("int8") else "bfloat16" if engine.endswith("bf16") else "float32"


def main(args) -> dict:
    networks = {}
    for one in args.network:
        name, _, files = one.partition("=")
        parts = [part or None for part in files.split(",")]
        if not files or len(parts) > 3:
            raise RequestError("--network", one, "NAME=CFG[,WEIGHTS[,INT8.onnx]]")
        networks[name] = [*parts, *[None] * (3 - len(parts))]
    found = peaks()
    rows = []
    for name, parts in networks.items():
        rows += measure(name, parts, args)
        show([row for row in rows if row["network"] == name], found)
    for row in rows:
        if "operations" in row and kind(row["engine"]) in found:
            row["share"] = row["operations"] / found[kind(row["engine"])]
    return {"peak": found, "networks": networks, "rows": rows, "machine": machine.describe()}


def show(rows: list[dict], found: dict[str, float]) -> None:
    print(
        f"{'network':14} {'engine':18} {'batch':>5} {'ms':>9} {'+-':>5} {'ms, nms':>9} "
        f"{'GFLOP/s':>8} {'of peak':>8}"
    )
    for row in rows:
        if "seconds" in row:
            share = row["operations"] / found.get(kind(row["engine"]), float("inf"))
            whole = " ".join(f"{1e3 * took:.1f}" for took in row["with_nms"].values())
            print(
                f"{row['network']:14} {row['engine']:18} {row['batch']:5} {1e3 * row['seconds']:9.1f} "
                f"{100 * row['spread']:4.0f}% {whole:>9} {row['operations'] / 1e9:8.1f}"
                f" {100 * share:7.0f}%",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(commands.run(main, parser()))
