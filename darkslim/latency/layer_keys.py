"""Where a layer stands in the table: its family and its widths.

A layer's *family* is everything about it that a cut leaves alone: type, kernel, stride, activation, size of
the map. Within a family the time depends on the widths only: (in, out) for a convolution, (in,) for a
depthwise one, one for other layers, () for a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..network.channels import Channels
from ..network.graph import Graph
from ..network.node import HEADS, Node
from .grid import axis

CONVOLUTION = ("size", "stride_y", "stride_x", "padding", "dilation", "activation", "batch_normalize")
# what else than widths and sizes of the maps makes a difference; a layer type without a row has nothing
OPTIONS = {
    "maxpool": ("size", "stride_y", "stride_x", "padding"),
    "upsample": ("stride", "scale"),
    "reorg": ("stride",),
    "reorg3d": ("stride",),
    "route": ("groups",),
    "shortcut": ("activation", "weights_type", "weights_normalization"),
    "sam": ("activation",),
    "scale_channels": ("activation",),
    "yolo": ("classes", "mask", "new_coords"),
    "region": ("classes", "mask", "softmax"),
}


@dataclass(frozen=True)
class LayerKey:
    """What one layer is looked up by.

    Attributes:
        family: as text.
        widths: what a cut changes.
        blocked: whether the kernel computes these widths in blocks.
        build: widths -> a node of this family that can be measured.
    """

    family: str
    widths: tuple[int, ...]
    blocked: bool
    build: Callable[[tuple[int, ...]], Node]


def layer_keys(node: Node) -> list[LayerKey]:
    """Where to look a layer up, best first; none for a layer that only passes its input on."""
    if node.type == "convolutional":
        return _convolutional(node)
    if node.type == "dropout" or (
        node.type == "route" and len(node.inputs) == 1 and node.opts["groups"] == 1
    ):
        return []
    family = _family(node, OPTIONS.get(node.type, ()))
    if node.type in HEADS:
        return [LayerKey(family, (), False, lambda widths: node)]
    if node.type == "route":
        spare = len(node.inputs) - 1  # widths start at 1, and that is one channel from each input
        return [
            LayerKey(family, (node.shape[0] - spare,), False, lambda widths: _route(node, widths[0] + spare))
        ]
    unit = (
        node.opts["stride"] ** 2 if node.type == "reorg" else 1
    )  # the old reorg takes no other numbers of channels
    wider = node.shape[0] // node.in_shapes[0][0]
    return [
        LayerKey(
            family,
            (node.in_shapes[0][0] // unit,),
            False,
            lambda widths: _with(node, [unit * widths[0]] * len(node.inputs), wider * unit * widths[0]),
        )
    ]


def keys_to_measure(graph: Graph) -> Iterator[tuple[LayerKey, tuple[tuple[int, ...], ...]]]:
    """(key, axes to measure) of every layer; a width that no strategy can change is an axis of one."""
    channels = Channels(graph)
    free = set(channels.prunable("group").tolist())
    shrinks = {
        layer: not free.isdisjoint(channels.of(layer).tolist()) for layer in range(-1, len(graph.nodes))
    }
    for node in graph.nodes:
        for key in layer_keys(node)[:1]:
            ends = (node.inputs[0], node.index)[-len(key.widths) :]
            axes = (
                axis(w, key.blocked) if shrinks[end] else (w,)
                for w, end in zip(key.widths, ends, strict=False)
            )
            yield key, tuple(axes)


def _convolutional(node: Node) -> list[LayerKey]:
    """A grouped convolution cut down to one channel a group looks like a depthwise one, and that, cut to one
    channel, like any other.
    """
    groups, cin, cout = node.opts["groups"], node.in_shapes[0][0], node.opts["filters"]
    family = _family(node, CONVOLUTION)
    found = []
    if groups == 1:
        found.append(LayerKey(family, (cin, cout), True, lambda w: _convolution(node, w[0], w[1], 1)))
    if groups == cin:
        each = cout // cin
        found.append(
            LayerKey(
                f"{family} depthwise={each}",
                (cin,),
                True,
                lambda w: _convolution(node, w[0], w[0] * each, w[0]),
            )
        )
    if groups > 1:
        found.append(
            LayerKey(
                f"{family} groups={groups}",
                (cin // groups, cout // groups),
                False,
                lambda w: _convolution(node, w[0] * groups, w[1] * groups, groups),
            )
        )
    return found


def _convolution(node: Node, cin: int, cout: int, groups: int) -> Node:
    return replace(
        _with(node, [cin], cout), opts=MappingProxyType({**node.opts, "filters": cout, "groups": groups})
    )


def _route(node: Node, width: int) -> Node:
    """A route to `width` channels; how the inputs share them makes no difference."""
    count, groups = len(node.inputs), node.opts["groups"]
    shares = [width // count] * count
    shares[0] += width - sum(shares)
    return _with(node, [groups * share for share in shares], sum(shares))


def _with(node: Node, inputs: Sequence[int], out: int) -> Node:
    shapes = tuple((c, *shape[1:]) for c, shape in zip(inputs, node.in_shapes, strict=True))
    return replace(node, in_shapes=shapes, shape=(out, *node.shape[1:]))


def _family(node: Node, keys: Iterable[str]) -> str:
    sizes = (f"{h}x{w}" for _, h, w in node.in_shapes)
    return " ".join((node.type, *sizes, *(f"{key}={node.opts[key]}" for key in keys)))
