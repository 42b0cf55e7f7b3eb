"""What is left when channel classes go: the cfg of the compact network, its graph, and what it counts. No
weights.
"""

from __future__ import annotations

import warnings

import numpy as np

from ..network.cfg import Cfg
from ..network.cfg_plain import plain
from ..network.channels import Channels
from ..network.graph import Graph


def compact_cfg(cfg: Cfg, channels: Channels, stays: np.ndarray) -> Cfg:
    """The cfg of the compact network: `filters` changed (and `groups` of depthwise convolutions), nothing
    else.

    Args:
        stays: bool (classes,).
    """
    new = plain(cfg)
    for layer in channels.convolutions:
        node, section = channels.graph.nodes[layer], new.layers[layer]
        width = int(stays[channels.ids[layer]].sum())
        if width != node.shape[0]:
            section.set("filters", width)
        if node.opts["groups"] > 1 and node.opts["groups"] == node.in_shapes[0][0]:
            groups = int(stays[channels.of(node.inputs[0])].sum())
            if groups != node.opts["groups"]:
                section.set("groups", groups)
    return new


def compact_graph(channels: Channels, stays: np.ndarray) -> Graph:
    """The graph of the compact network, from the classes that stay, bool (classes,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever read the cfg has been told
        return Graph(compact_cfg(channels.graph.cfg, channels, stays))


class Counter:
    """Parameters and MACs of a compact network from the classes that stay: as `profile.count` of its cfg, but
    quick.
    """

    def __init__(self, channels: Channels):
        self.channels, self.graph = channels, channels.graph

    def __call__(self, stays: np.ndarray) -> tuple[int, int]:
        """(parameters, MACs).

        Args:
            stays: bool (classes,).
        """
        params = macs = 0
        for node in self.graph.nodes:
            rows = int(stays[self.channels.ids[node.index]].sum())
            if node.type == "convolutional":
                groups = node.opts["groups"]
                source = stays[self.channels.of(node.inputs[0])].reshape(groups, -1)
                columns = (
                    int(source[0].sum()) if source.shape[1] > 1 else 1
                )  # depthwise: one channel a group, fewer groups
                kernels = rows * columns * node.opts["size"] ** 2
                params += kernels + rows * (2 if node.opts["batch_normalize"] else 1)
                macs += kernels * node.shape[1] * node.shape[2]
            elif node.type == "shortcut" and node.opts["weights_type"] != "none":
                params += len(node.inputs) * (rows if node.opts["weights_type"] == "per_channel" else 1)
        return params, macs
