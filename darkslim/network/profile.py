"""Parameters, MACs and activation bytes from the cfg alone; latency by measuring.

MACs: one per multiply-add of the convolutions, batch 1. Darknet's BFLOPs are twice that.
Activation bytes: float32 outputs of every layer that makes new data.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from .graph import Graph, Node, node_parameters


@dataclass(frozen=True)
class LayerProfile:
    """Counts of one layer."""

    index: int
    type: str
    parameters: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Profile:
    """Counts of a network: `params`, `macs`, `activation_bytes`, and the same a layer."""

    params: int
    macs: int
    activation_bytes: int
    layers: tuple[LayerProfile, ...]


def count(graph: Graph) -> Profile:
    """Counts a network from its graph, at the graph's input size; no weights are needed."""
    layers = tuple(
        LayerProfile(n.index, n.type, node_parameters(n), _macs(n), _activation_bytes(n)) for n in graph.nodes
    )
    return Profile(
        sum(x.parameters for x in layers),
        sum(x.macs for x in layers),
        sum(x.activation_bytes for x in layers),
        layers,
    )


def _macs(node: Node) -> int:
    if node.type != "convolutional":
        return 0
    filters, h, w = node.shape
    return filters * h * w * (node.in_shapes[0][0] // node.opts["groups"]) * node.opts["size"] ** 2


def _activation_bytes(node: Node) -> int:
    if node.type in ("dropout", "yolo", "region") or (
        node.type == "route" and len(node.inputs) == 1 and node.opts["groups"] == 1
    ):
        return 0
    c, h, w = node.shape
    return 4 * c * h * w


def latency(model, size: tuple[int, int] | None = None, repeats: int = 9, warmup: int = 2) -> float:
    """Median seconds of one forward pass at batch 1, on the model's device, after a warm-up.

    Args:
        size: (height, width); the cfg's if None.
    """
    return paired_latency([model], size, repeats, warmup)[0]


def paired_latency(
    models, size: tuple[int, int] | None = None, repeats: int = 9, warmup: int = 2
) -> list[float]:
    """Median seconds of each model, measured in turn (A B A B ...), so that a drift of the machine hits all
    alike.
    """
    import torch

    inputs, modes, times = [], [m.training for m in models], [[] for _ in models]
    for model in models:
        c, h, w = model.graph.input_shape
        parameter = next(model.parameters())
        inputs.append(torch.rand(1, c, *(size or (h, w)), device=parameter.device, dtype=parameter.dtype))
        model.eval()
    try:
        with torch.inference_mode():
            for turn in range(warmup + repeats):
                for i, model in enumerate(models):
                    _synchronize(inputs[i].device)
                    start = time.perf_counter()
                    model(inputs[i])
                    _synchronize(inputs[i].device)
                    if turn >= warmup:
                        times[i].append(time.perf_counter() - start)
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    return [statistics.median(t) for t in times]


def _synchronize(device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
