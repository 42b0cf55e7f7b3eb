"""Times single layers on this machine, many of them in turn."""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..network.heads import Head, decode, raw_map
from ..network.layers import build
from ..network.node import HEADS, Node

# layers that take turns: few enough for torch's cache of compiled CPU kernels (1024, about four a layer)
TOGETHER = 64
POOL = (
    1 << 24
)  # floats that weights and inputs are taken from: more than caches hold, as the weights of a network are
PIECE = 1.0  # seconds that are enough for those that take turns
LEAST = 3  # turns that are taken all the same, unless the limit forbids it
LINE = 16  # floats in a cache line, on which a tensor of its own would start
# a measurement on a GPU: back to back, as in a network, where a launch does not wait for the kernel before
CALLS = 8


def machine(device) -> str:
    """What a measured time holds for: processor, cores, threads, torch, device."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return " | ".join(
        (
            _processor(),
            f"{os.cpu_count()} cores",
            f"{torch.get_num_threads()} threads",
            f"torch {torch.__version__}",
            name,
        )
    )


def _processor() -> str:
    """The processor's name, and on Linux the numbers that tell models of one name apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = found.get("model name") or platform.processor() or platform.machine()
    return " ".join((model, *(found[key] for key in ("cpu family", "model", "stepping") if key in found)))


class Stopwatch:
    """Median seconds of layers at batch 1, in eval mode, float32 and NCHW, as `time_networks` runs a
    network.

    Layers take turns in a shuffled order, so that a drift of the machine and the state of its caches hit all
    alike.

    Args:
        device: a torch device.
        repeats: turns that count, after one that does not; slow layers take fewer.
        limit: seconds for all layers together, about. Where they run out, there may be one turn only.
        progress: wraps the pieces of work, called as darkslim.commands.progress(items, desc=...).
    """

    def __init__(
        self, device="cpu", repeats: int = 15, limit: float = 60.0, progress: Callable | None = None
    ):
        self.device, self.repeats, self.limit = torch.device(device), repeats, limit
        self.progress = progress or (lambda items, desc: items)

    def __call__(self, nodes: Sequence[Node]) -> list[float]:
        """Seconds of each node."""
        order = random.Random(0).sample(range(len(nodes)), len(nodes))
        pieces = [order[i : i + TOGETHER] for i in range(0, len(order), TOGETHER)]
        seconds = [0.0] * len(nodes)
        end = time.perf_counter() + self.limit
        with torch.inference_mode():
            pool = _Pool(max([POOL, *(_floats(node) for node in nodes)]), self.device)
            for done, piece in enumerate(self.progress(pieces, desc="measuring layers")):
                share = (end - time.perf_counter()) / (len(pieces) - done)
                found = self._in_turn([_call(nodes[i], pool) for i in piece], share)
                for i, median in zip(piece, found, strict=True):
                    seconds[i] = median
        return seconds

    def _in_turn(self, calls: list[Callable[[], object]], share: float) -> list[float]:
        start = time.perf_counter()
        times: list[list[float]] = [[] for _ in calls]
        for turn in range(self.repeats + 1):
            if turn > 1 and (time.perf_counter() - start) * (turn + 1) / turn > (
                min(share, PIECE) if turn > LEAST else share
            ):
                break
            for call, found in zip(calls, times, strict=True):
                took = self._once(call)
                if turn:  # the first compiles kernels
                    found.append(took)
        return [max(statistics.median(found), 1e-9) for found in times]  # a coarse clock may say 0

    def _once(self, call: Callable[[], object]) -> float:
        gpu = self.device.type == "cuda"
        calls = CALLS if gpu else 1
        if gpu:
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        if gpu:
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - start) / calls


class _Pool:
    """Slices of one block of random numbers in 0..1: quick to hand out, and the program's own generators are
    left alone.
    """

    def __init__(self, size: int, device: torch.device):
        self.numbers = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)
        self.next = 0

    def take(self, shape: Sequence[int]) -> Tensor:
        """The next slice, of any shape; at the end it starts over."""
        count = torch.Size(shape).numel()
        if self.next + count > len(self.numbers):
            self.next = 0
        start, self.next = self.next, self.next + _whole_lines(count)
        return self.numbers[start : start + count].view(shape)


def _whole_lines(count: int) -> int:
    return -(-count // LINE) * LINE


def _floats(node: Node) -> int:
    """At least what the largest slice for a node takes from the pool."""
    inputs = max(c * h * w for c, h, w in node.in_shapes)
    if node.type != "convolutional":
        return max(inputs, len(node.inputs) * node.shape[0])
    return max(
        inputs, node.opts["filters"] * node.in_shapes[0][0] // node.opts["groups"] * node.opts["size"] ** 2
    )


def _call(node: Node, pool: _Pool) -> Callable[[], object]:
    """What runs the layer on inputs of its own."""
    inputs = [pool.take((1, *shape)) for shape in node.in_shapes]
    if node.type in HEADS:
        head = Head.of(node)
        size = tuple(int(side * node.stride) for side in node.in_shapes[0][1:])
        return lambda: decode(raw_map(inputs[0], head), head, size)
    with torch.device("meta"):  # no memory, and no random numbers drawn for weights that are replaced at once
        module = build(node).eval()
    for part in module.modules():
        for name, tensor in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(pool.take(tensor.shape), requires_grad=False))
        for name, tensor in part.named_buffers(recurse=False):
            count = torch.zeros(tensor.shape, dtype=tensor.dtype, device=pool.numbers.device)
            setattr(part, name, pool.take(tensor.shape) if tensor.is_floating_point() else count)
    return lambda: module(*inputs)
