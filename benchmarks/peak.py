"""What this machine can multiply at most: large square matrices in float32, bfloat16 and 8-bit integers.

    python benchmarks/peak.py --json docs/results/peak.json

float32 and bfloat16 by torch's matrix product, integers by OpenVINO's 1x1 convolutions, several in a row, as
its networks run them. bfloat16 only where the processor has it. The best of several turns counts, for it is a
bound that is looked for. `operations` are multiplications and additions.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darkslim import commands
from darkslim.report import machine

SIDE, SMALL, TURNS = 2048, 256, 12
ROW = 4  # convolutions of 8 bits, so that turning floats into integers and back weighs little


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--side", type=commands.count(64, 16384), default=SIDE, help="of the matrices")
    p.add_argument("--turns", type=commands.count(2), default=TURNS, help="of each kind")
    return p


def peaks(side: int = SIDE, turns: int = TURNS) -> dict[str, float]:
    """Operations a second: kind -> the best of some turns."""
    calls = {"float32": torch_call(side, torch.float32)}
    few = {dtype: once(torch_call(SMALL, dtype)) for dtype in (torch.float32, torch.bfloat16)}
    if (
        few[torch.bfloat16] < few[torch.float32]
    ):  # else the processor has it not, and a large one takes minutes
        calls["bfloat16"] = torch_call(side, torch.bfloat16)
    if (call := int8_call(side)) is not None:
        calls["int8"] = call
    times: dict[str, list[float]] = {kind: [] for kind in calls}
    amounts = {kind: 2 * side**3 * (ROW if kind == "int8" else 1) for kind in calls}
    for turn in range(turns + 1):
        for kind, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                times[kind].append(time.perf_counter() - began)
    for kind, found in times.items():
        best, usual = (1e-9 * amounts[kind] / t for t in (min(found), statistics.median(found)))
        print(f"{kind:9} {best:8.1f} G operations a second, median {usual:8.1f}")
    return {kind: amounts[kind] / min(found) for kind, found in times.items()}


def once(call) -> float:
    """Seconds of the quickest of a few calls."""
    found = []
    for _ in range(8):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def torch_call(side: int, dtype: torch.dtype):
    a, b = (torch.rand(side, side).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def int8_call(side: int):
    """ROW times the products as 1x1 convolutions of 8-bit maps in OpenVINO, which has no integer kernel for a
    plain product of matrices on all processors; None where it is not installed.
    """
    try:
        import openvino as ov
        from openvino import opset13 as ops
    except ImportError:
        return None
    high = 1 << (side.bit_length() - 1) // 2  # side positions, as a map of so many rows
    maps = ops.parameter([1, side, high, side // high], np.float32)
    limits = [ops.constant(np.float32(v)) for v in (0.0, 1.0)]
    made = ops.fake_quantize(maps, *limits, *limits, levels=256)
    draw = np.random.default_rng(0)
    for _ in range(ROW):
        kernel = ops.constant(draw.integers(-63, 64, (side, side, 1, 1)).astype(np.int8))
        scale = ops.constant(np.full((side, 1, 1, 1), 1 / 63, np.float32))
        kernel = ops.multiply(ops.convert(kernel, np.float32), scale)
        made = ops.convolution(made, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        wide = [ops.constant(np.float32(v)) for v in (0.0, 99.0)]
        made = ops.fake_quantize(made, *wide, *wide, levels=256)
    model = ov.Model([ops.result(made)], [maps])
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    values = np.random.default_rng(1).random((1, side, high, side // high), np.float32)
    return lambda: request.infer([values], share_inputs=True)


def main(args) -> dict:
    return {"side": args.side, "operations": peaks(args.side, args.turns), "machine": machine.describe()}


if __name__ == "__main__":
    sys.exit(commands.run(main, parser()))
