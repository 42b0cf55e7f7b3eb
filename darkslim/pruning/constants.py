"""Constants: what a cut channel leaves behind, followed symbolically through the graph.

A channel whose gamma is 0 is not zero: it is act(beta) everywhere. `propagate` follows such values through
every layer; `Inflow` sums up what they add to a convolution that stays. All of it is float64.

A channel that is not constant is NaN. To add a layer type, give it a row in `RULES`; a type without one
makes nothing constant (its channels are protected, see darkslim/network/channels.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..network import layers
from ..network.channels import Channels
from .parts import array, convolution, view


def activate(name: str, values: np.ndarray) -> np.ndarray:
    """An activation by its Darknet name, in float64; NaN stays NaN."""
    made = layers.activate(name, torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))).numpy()
    return np.where(np.isnan(values), np.nan, made)  # some activations clamp NaN to a number


def propagate(model, channels: Channels, made: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    """The constant that each output channel of each layer holds.

    Args:
        made: convolution -> float64 (filters,): the constant after its activation, NaN where it is not
            constant.

    Returns:
        For every layer a float64 array (C,), NaN where the channel is not constant.
    """
    found: list[np.ndarray] = []
    image = np.full(len(channels.image_ids), np.nan)
    for node in channels.graph.nodes:
        if node.type == "convolutional":
            value = made.get(node.index)
            found.append(np.full(node.shape[0], np.nan) if value is None else value)
            continue
        inputs = [image if i < 0 else found[i] for i in node.inputs]
        rule = RULES.get(node.type)
        found.append(rule(model, node, inputs) if rule else np.full(node.shape[0], np.nan))
    return found


def _same(model, node, inputs):
    return inputs[0]


def _upsample(model, node, inputs):
    return inputs[0] * node.opts["scale"]


def _shortcut(model, node, inputs):
    weights = model.module_list[node.index].factors()
    weights = None if weights is None else np.broadcast_to(array(weights), (len(inputs), len(inputs[0])))
    total = inputs[0] * (1 if weights is None else weights[0])
    for number, other in enumerate(inputs[1:], 1):
        shared = min(len(total), len(other))
        factor = 1 if weights is None else weights[number][:shared]
        total[:shared] = total[:shared] + other[:shared] * factor  # NaN in either makes NaN
    return activate(node.opts["activation"], total)


def _route(model, node, inputs):
    groups, group = node.opts["groups"], node.opts["group_id"]
    return np.concatenate([values.reshape(groups, -1)[group] for values in inputs])


def _product(model, node, inputs):
    return activate(node.opts["activation"], inputs[0] * inputs[1])


def _reorg(model, node, inputs):
    """Constant only where all channels that may be mixed are the same constant, so that it holds at any input
    size.
    """
    square = node.opts["stride"] ** 2
    if len(inputs[0]) % square:
        return np.full(node.shape[0], np.nan)
    rows = inputs[0].reshape(-1, square)
    rows = np.where((rows == rows[:, :1]).all(axis=1, keepdims=True), rows, np.nan)
    return np.tile(rows, (square, 1)).reshape(-1)


def _reorg3d(model, node, inputs):
    return np.tile(inputs[0], node.opts["stride"] ** 2)


RULES: dict[str, Callable[..., np.ndarray]] = {
    "shortcut": _shortcut,
    "route": _route,
    "maxpool": _same,  # padded with minus infinity, so the border changes nothing
    "avgpool": _same,
    "upsample": _upsample,
    "dropout": _same,
    "sam": _product,
    "scale_channels": _product,
    "reorg": _reorg,
    "reorg3d": _reorg3d,
}


@dataclass(frozen=True)
class Inflow:
    """What the cut input channels of one convolution add to it.

    Attributes:
        kernel: float64 (filters, size * size): the sum over cut inputs of constant * kernel, tap by tap.
        padded: whether the convolution pads with zeros, so that the border sees only a part of the taps.
    """

    kernel: np.ndarray
    padded: bool

    @property
    def interior(self) -> np.ndarray:
        """float64 (filters,): what is added wherever the whole kernel lies inside the map."""
        return self.kernel.sum(axis=1)


def inflow(
    model, channels: Channels, layer: int, constants: np.ndarray, cut: np.ndarray, alive: np.ndarray
) -> Inflow:
    """The inflow of one convolution.

    Args:
        constants: float64 (C,) of the layer's input.
        cut: bool (C,): which input channels are cut. Each must be constant.
        alive: bool (filters,): the filters that matter; whatever reaches a masked one is multiplied by gamma
            0.
    """
    node = channels.graph.nodes[layer]
    weight = view(convolution(model, layer).weight)
    filters, depth, groups = weight.shape[0], weight.shape[1], node.opts["groups"]
    weight = weight.reshape(filters, depth, -1)
    values = np.where(cut, constants, 0.0).reshape(groups, depth)
    kernel = np.zeros((filters, weight.shape[2]))
    for g in np.flatnonzero((values != 0).any(axis=1)):
        rows = np.flatnonzero(alive.reshape(groups, -1)[g]) + g * (filters // groups)
        used = np.flatnonzero(values[g])
        kernel[rows] = np.tensordot(
            weight[np.ix_(rows, used)].astype(np.float64), values[g, used], axes=(1, 0)
        )
    return Inflow(kernel, node.opts["padding"] > 0)
