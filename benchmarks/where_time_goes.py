"""Which operations an engine spends its time on, by its own clock.

    python benchmarks/where_time_goes.py --network slim=CFG,WEIGHTS[,INT8.onnx] \
        --json docs/results/where_time_goes.json

Batch 1, every engine in a process of its own, the sum over some passes. Engines fuse: what follows a
convolution at once is mostly counted as its part, so that `convolutions` are these with what is fused into
them. ncnn's package has no such clock.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from engines import build, pictures

from darkslim import commands
from darkslim.base.errors import DarkslimError
from darkslim.deploy.onnx_file import INPUT, onnx_model
from darkslim.network import weights
from darkslim.pruning.fuse import fuse
from darkslim.report import machine
from darkslim.report.tables import right

NAMES = ("torch", "torch-folded", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8", "opencv")
PASSES, FIRST = 20, 3  # that are counted; that warm up


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--network", action="append", required=True, help="NAME=CFG[,WEIGHTS[,INT8.onnx]]")
    p.add_argument("--engines", nargs="+", choices=NAMES, default=list(NAMES), help="which")
    p.add_argument("--most", type=commands.count(1), default=4, help="kinds of operations that are named")
    return p


def of_torch(network, x) -> Counter:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(PASSES):
            network(x)
    return Counter({e.key.removeprefix("aten::"): e.self_cpu_time_total for e in found.key_averages()})


def of_onnxruntime(name: str, parts: list, x) -> Counter:
    """Runs the file again with the clock on."""
    source = parts[2]
    if not name.endswith("int8"):
        model = fuse(weights.load_model(*parts[:2]))
        source = onnx_model(model, tuple(x.shape[2:])).SerializeToString()
    runtime = sys.modules["onnxruntime"]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = torch.get_num_threads(), True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        for _ in range(FIRST + PASSES):
            session.run(None, {INPUT: x.numpy()})
        events = json.loads(Path(session.end_profiling()).read_text())
    found: Counter = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["op_name"]] += event["dur"]
    return found


def of_openvino(network, x) -> Counter:
    options = {**network.options, "PERF_COUNT": True}
    network.model.reshape(list(x.shape))
    request = network.core.compile_model(network.model, "CPU", options).create_infer_request()
    found: Counter = Counter()
    for number in range(FIRST + PASSES):
        request.infer([x.numpy()], share_inputs=True)
        if number >= FIRST:
            for node in request.profiling_info:
                found[node.node_type] += node.real_time.total_seconds()
    return found


def of_opencv(network, x) -> Counter:
    found: Counter = Counter()
    names = network.net.getLayerNames()
    for number in range(FIRST + PASSES):
        network(x)
        _, times = network.net.getPerfProfile()
        if number >= FIRST:
            for name, ticks in zip(names, times.reshape(-1), strict=False):
                found[network.net.getLayer(network.net.getLayerId(name)).type] += float(ticks)
    return found


CLOCKS = {"torch": of_torch, "openvino": of_openvino, "opencv": of_opencv}


def one(name: str, parts: list) -> dict[str, float]:
    """Kind of operation -> its share of the time."""
    network = build(name, *parts)
    x = pictures(parts, None, 1)
    with torch.inference_mode():
        for _ in range(FIRST):
            network(x)
        runtime = name.split("-")[0]
        found = of_onnxruntime(name, parts, x) if runtime == "onnxruntime" else CLOCKS[runtime](network, x)
    whole = sum(found.values())
    return {kind: time / whole for kind, time in found.most_common() if time}


def main(args) -> dict:
    rows = []
    for named in args.network:
        name, _, files = named.partition("=")
        parts = [part or None for part in files.split(",")]
        parts += [None] * (3 - len(parts))
        for engine in args.engines:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                try:
                    shares = pool.submit(one, engine, parts).result()
                except DarkslimError as e:
                    print(f"{name}: {engine}: {e}", flush=True)
                    continue
            row = {"network": name, "engine": engine, "shares": shares}
            row["convolutions"] = sum(s for k, s in shares.items() if k.lower().find("conv") >= 0)
            rows.append(row)
            print(*cells(row, args.most), flush=True)
    print(right([["network", "engine", "convolutions", "other"], *(cells(row, args.most) for row in rows)]))
    return {"rows": rows, "passes": PASSES, "machine": machine.describe()}


def cells(row: dict, most: int) -> list[str]:
    other = [(k, s) for k, s in row["shares"].items() if k.lower().find("conv") < 0 and s >= 0.01]
    said = ", ".join(f"{kind} {share:.0%}" for kind, share in other[:most])
    return [row["network"], row["engine"], f"{row['convolutions']:.0%}", said]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
