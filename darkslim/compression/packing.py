"""From a network to one whose kernels share values, and to its packed file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from ..network import packed
from ..network.arrays import in_order
from ..network.darknet import Darknet
from ..network.packed import Shared, Stored
from ..network.weights import weights_size
from .accounting import Layer, account, stages
from .sharing import share


@dataclass(frozen=True)
class Packing:
    """A packed file in memory.

    Attributes:
        data: the file. stored: how each tensor lies in it. layers: bytes of each layer's kernels.
        stages: name and bytes of each step. entropy: the least for the whole file, in bytes: of the symbols
            of every layer, and all else as it is.
    """

    data: bytes
    stored: list[Stored]
    layers: list[Layer]
    stages: list[dict]
    entropy: float


def kind_of(model: Darknet, layer: int) -> str:
    """`head` before a detection layer, `depthwise`, or `conv`."""
    node = model.graph.nodes[layer]
    if any(model.graph.nodes[i].type in ("yolo", "region") for i in model.graph.consumers[layer]):
        return "head"
    return "depthwise" if node.opts["groups"] > 1 and node.opts["groups"] == node.in_shapes[0][0] else "conv"


def share_all(
    model: Darknet, bits: Mapping[str, int], progress: Callable[[Iterable], Iterable] = iter
) -> dict[int, Shared]:
    """Every layer's kernels as shared values; those of `model` become them, in place.

    Args:
        bits: kind of layer (`kind_of`) -> bits of a code.
    """
    found = {}
    for layer, conv in progress(list(model.convolutions().items())):
        kernels = conv.weight.detach().cpu().float().numpy()
        found[layer] = share(kernels, bits[kind_of(model, layer)])
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(found[layer].weights()))
    return found


def pack(model: Darknet, shared: Mapping[int, Shared], coder: str = "ans") -> Packing:
    """The packed file of a network with shared kernels, and what it comes to.

    Raises:
        WeightsError: shared values that are not the network's.
    """
    data, stored = packed.packed_bytes(model, shared, coder)
    kernels = [
        account(row, shared.get(row.layer), tensor.detach().cpu().float().numpy())
        for row, (_, name, tensor) in zip(stored, in_order(model), strict=True)
        if name == "kernels"
    ]
    others = sum(row.size for row in stored if row.name != "kernels")
    steps = stages(kernels, others, weights_size(model), len(data))
    rest = len(data) - sum(row.coded for row in kernels)
    return Packing(data, stored, kernels, steps, rest + sum(row.entropy for row in kernels))
