"""One layer of the graph: what is known of it, and one rule a section type. No torch.

`RULES` has one row a section type: a function that works out which layers it reads and the shape it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from ..base.errors import CfgError
from .cfg import Section

Shape = tuple[int, int, int]
HEADS = ("yolo", "region")


@dataclass(frozen=True)
class Node:
    """One layer.

    Attributes:
        index: layer number, from 0.
        type: canonical section type.
        section: where it stands in the cfg.
        inputs: absolute numbers of the layers it reads; -1 is the image. For a shortcut the previous layer
            comes first.
        in_shapes: (C, H, W) of each input.
        shape: (C, H, W) of the output.
        stride: input pixels per cell along the width.
        opts: typed values of the section; a convolution's `padding` is the effective one and `stride_x`,
            `stride_y`, `batch_normalize` (bool) are filled in; a head's `mask` is, too.
    """

    index: int
    type: str
    section: Section
    inputs: tuple[int, ...]
    in_shapes: tuple[Shape, ...]
    shape: Shape
    stride: Fraction
    opts: Mapping[str, Any]


class Before(Protocol):
    """What a rule sees of the graph: what stands before its layer."""

    input_shape: Shape
    nodes: list[Node]


@dataclass
class Layer:
    """What a rule sees: the section, its values, and the layers before it."""

    graph: Before
    section: Section
    opts: dict[str, Any]

    @property
    def index(self) -> int:
        return self.section.index

    def fail(self, key: str | None, found: str, expected: str = "", remedy: str = ""):
        raise CfgError(self.section.place_of(key), found, expected, remedy)

    def shape(self, layer: int) -> Shape:
        return self.graph.input_shape if layer < 0 else self.graph.nodes[layer].shape

    def previous(self) -> int:
        return self.index - 1

    def absolute(self, key: str, reference: int) -> int:
        layer = reference if reference >= 0 else self.index + reference
        text = f"{key}={self.section.get(key)}"
        if layer < 0:
            self.fail(
                key,
                f"{text} reaches before layer 0",
                f"{-self.index} or more here, or an absolute layer number",
            )
        if layer >= self.index:
            self.fail(
                key,
                f"{text} names layer {layer}, which is not before this one",
                f"layers 0 to {self.index - 1}",
            )
        return layer


Rule = Callable[[Layer], tuple[tuple[int, ...], Shape]]


def _convolutional(layer: Layer):
    o = layer.opts
    c, h, w = layer.shape(layer.previous())
    o["stride_x"] = o["stride_x"] or o["stride"]
    o["stride_y"] = o["stride_y"] or o["stride"]
    o["batch_normalize"] = bool(o["batch_normalize"])
    if o["pad"]:
        o["padding"] = o["size"] // 2
    groups, filters = o["groups"], o["filters"]
    for name, count in (("filters", filters), ("input channels", c)):
        if count % groups:
            layer.fail("groups", f"groups={groups} does not divide the {count} {name}")
    out = (
        (h + 2 * o["padding"] - o["size"]) // o["stride_y"] + 1,
        (w + 2 * o["padding"] - o["size"]) // o["stride_x"] + 1,
    )
    reach = o["dilation"] * (o["size"] - 1) + 1
    real = (
        (h + 2 * o["padding"] * o["dilation"] - reach) // o["stride_y"] + 1,
        (w + 2 * o["padding"] * o["dilation"] - reach) // o["stride_x"] + 1,
    )
    if min(out) > 0 and out != real:
        layer.fail(
            "dilation",
            f"dilation={o['dilation']} with size {o['size']} and padding {o['padding']} makes {real[1]} x "
            f"{real[0]}, "
            f"and Darknet would take it for {out[1]} x {out[0]}",
            "an odd size with pad=1",
        )
    return (layer.previous(),), (filters, *out)


def _maxpool(layer: Layer):
    o = layer.opts
    c, h, w = layer.shape(layer.previous())
    o["stride_x"] = o["stride_x"] or o["stride"]
    o["stride_y"] = o["stride_y"] or o["stride"]
    o["size"] = o["size"] or o["stride"]
    o["padding"] = o["size"] - 1 if o["padding"] is None else o["padding"]
    if (o["padding"] + 1) // 2 >= o["size"]:
        layer.fail(
            "padding",
            f"padding={o['padding']} with size {o['size']}: whole windows would lie outside the map",
            f"at most {2 * o['size'] - 2}",
        )
    return (layer.previous(),), (
        c,
        (h + o["padding"] - o["size"]) // o["stride_y"] + 1,
        (w + o["padding"] - o["size"]) // o["stride_x"] + 1,
    )


def _avgpool(layer: Layer):
    return (layer.previous(),), (layer.shape(layer.previous())[0], 1, 1)


def _upsample(layer: Layer):
    c, h, w = layer.shape(layer.previous())
    s = layer.opts["stride"]
    return (layer.previous(),), (c, h * s, w * s)


def _same(layer: Layer):
    return (layer.previous(),), layer.shape(layer.previous())


def _route(layer: Layer):
    inputs = tuple(layer.absolute("layers", i) for i in layer.opts["layers"])
    groups, group = layer.opts["groups"], layer.opts["group_id"]
    if group >= groups:
        layer.fail("group_id", f"group_id={group} with groups={groups}", f"0 to {groups - 1}")
    first = layer.shape(inputs[0])
    channels = 0
    for source in inputs:
        c, h, w = layer.shape(source)
        if (h, w) != first[1:]:
            layer.fail(
                "layers",
                f"layers={layer.section.get('layers')} joins {first[2]} x {first[1]} (layer {inputs[0]}) "
                "with "
                f"{w} x {h} (layer {source})",
                "maps of one size",
                _size_hint(layer.graph),
            )
        if c % groups:
            layer.fail("groups", f"groups={groups} does not divide the {c} channels of layer {source}")
        channels += c // groups
    return inputs, (channels, *first[1:])


def _shortcut(layer: Layer):
    if layer.index == 0:
        layer.fail("from", "a shortcut cannot be the first layer")
    inputs = (layer.previous(), *(layer.absolute("from", i) for i in layer.opts["from"]))
    c, h, w = layer.shape(inputs[0])
    for source in inputs[1:]:
        if layer.shape(source)[1:] != (h, w):
            _, sh, sw = layer.shape(source)
            layer.fail(
                "from",
                f"from={layer.section.get('from')} adds {sw} x {sh} (layer {source}) to {w} x {h}",
                "maps of one size",
                _size_hint(layer.graph),
            )
        if layer.opts["weights_type"] != "none" and layer.shape(source)[0] != c:
            layer.fail(
                "from",
                f"from={layer.section.get('from')} joins {c} channels with {layer.shape(source)[0]}",
                "equal widths in a weighted shortcut",
            )
    return inputs, (c, h, w)


def _sam(layer: Layer):
    inputs = (layer.previous(), layer.absolute("from", layer.opts["from"]))
    a, b = layer.shape(inputs[0]), layer.shape(inputs[1])
    if a != b:
        layer.fail(
            "from",
            f"from={layer.section.get('from')} multiplies {a[0]} channels of {a[2]} x {a[1]} with {b[0]} of "
            f"{b[2]} x {b[1]}",
            "equal shapes",
        )
    return inputs, a


def _scale_channels(layer: Layer):
    inputs = (layer.previous(), layer.absolute("from", layer.opts["from"]))
    a, b = layer.shape(inputs[0]), layer.shape(inputs[1])
    if a != (b[0], 1, 1):
        layer.fail(
            "from",
            f"from={layer.section.get('from')} scales {b[0]} channels by {a[0]} of {a[2]} x {a[1]}",
            "one value a channel (an [avgpool] before)",
        )
    return inputs, b


def _reorg(layer: Layer):
    c, h, w = layer.shape(layer.previous())
    s = layer.opts["stride"]
    if h % s or w % s or (layer.section.type == "reorg" and c % (s * s)):
        layer.fail("stride", f"stride={s} does not divide {c} channels of {w} x {h} as reorg needs")
    return (layer.previous(),), (c * s * s, h // s, w // s)


def _head(layer: Layer):
    o, c = layer.opts, layer.shape(layer.previous())[0]
    anchors, num, mask = o["anchors"], o["num"], o.get("mask")
    if len(anchors) < num and mask is None:
        layer.fail("anchors", f"{len(anchors)} anchors with num={num} and no mask", f"{num} pairs")
    o["anchors"] = anchors[:num]
    o["mask"] = tuple(range(num)) if mask is None else mask
    last = len(o["anchors"]) - 1  # with a mask, num may be too large: Darknet makes up what no mask uses
    for index in o["mask"]:
        if not 0 <= index <= last:
            layer.fail(
                "mask",
                f"mask={layer.section.get('mask')} names anchor {index} of {last + 1} (num={num}, "
                f"{len(anchors)} given)",
                f"0 to {last}",
            )
    if len(set(o["mask"])) < len(o["mask"]):
        layer.fail("mask", f"mask={layer.section.get('mask')} names an anchor twice")
    wanted = len(o["mask"]) * (5 + o["classes"])
    if c != wanted:
        source = layer.previous()
        place = layer.graph.nodes[source].section.place_of("filters") if source >= 0 else layer.section.place
        raise CfgError(
            place,
            f"{c} filters feed the [{layer.section.type}] of layer {layer.index}",
            f"filters={wanted}: {len(o['mask'])} anchors x (5 + {o['classes']} classes)",
        )
    return (layer.previous(),), layer.shape(layer.previous())


RULES: dict[str, Rule] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "upsample": _upsample,
    "dropout": _same,
    "route": _route,
    "shortcut": _shortcut,
    "sam": _sam,
    "scale_channels": _scale_channels,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "yolo": _head,
    "region": _head,
}


def scale(kind: str, opts: Mapping[str, Any]) -> Fraction:
    if kind in ("convolutional", "maxpool"):
        return Fraction(opts["stride_x"])
    if kind in ("reorg", "reorg3d"):
        return Fraction(opts["stride"])
    return Fraction(1, opts["stride"]) if kind == "upsample" else Fraction(1)


def parameters(opts: Mapping[str, Any], kind: str, in_shapes: tuple[Shape, ...], shape: Shape) -> int:
    """Trainable parameters of a layer: kernels, biases or gammas and betas, shortcut weights."""
    if kind == "convolutional":
        kernels = opts["filters"] * (in_shapes[0][0] // opts["groups"]) * opts["size"] ** 2
        return kernels + opts["filters"] * (2 if opts["batch_normalize"] else 1)
    if kind == "shortcut" and opts["weights_type"] != "none":
        return len(in_shapes) * (shape[0] if opts["weights_type"] == "per_channel" else 1)
    return 0


def node_parameters(node: Node) -> int:
    """Trainable parameters of a node: kernels, biases or gammas and betas, shortcut weights."""
    return parameters(node.opts, node.type, node.in_shapes, node.shape)


def volume(shape: Shape) -> int:
    return shape[0] * shape[1] * shape[2]


def _size_hint(graph: Before) -> str:
    _, h, w = graph.input_shape
    strides = max((int(n.stride) for n in graph.nodes), default=1)
    if h % strides or w % strides:
        return f"the input {w} x {h} is no multiple of the network's stride {strides}"
    return ""
