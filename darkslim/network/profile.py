"""Parameters, MACs and activation bytes from the cfg alone.

MACs: one per multiply-add of the convolutions, batch 1. Darknet's BFLOPs are twice that.
Activation bytes: float32 outputs of every layer that makes new data.
"""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Graph
from .node import Node, node_parameters


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
