"""The graph that a cfg describes: absolute inputs, shapes and strides of every layer. No torch.

Everything that follows channels or builds modules works on the nodes of this graph, never on layer numbers,
neighbourhood or the name of a family.
"""

from __future__ import annotations

from fractions import Fraction
from types import MappingProxyType

from ..base.errors import CfgError, RequestError
from .cfg import Cfg, Section
from .cfg_doubts import warn_of_doubts
from .node import HEADS, RULES, Layer, Node, Shape, parameters, scale, volume
from .schema import values

MAX_PARAMETERS = 1 << 30  # 4 GiB of float32; the largest published Darknet detectors have a quarter of it
MAX_STRIDE = 1 << 20
MAX_ACTIVATIONS = 1 << 33  # floats of all layers together for one image


class Graph:
    """The layers of a cfg with absolute inputs and shapes.

    Args:
        cfg: the network.
        height, width: input size in pixels, if other than the cfg's.

    Attributes:
        cfg, nodes, input_shape (C, H, W);
        heads: numbers of the detection layers;
        consumers: for each layer the numbers of the layers that read it.

    Raises:
        CfgError: anything that makes the network impossible, with file, line and layer; sizes are bounded
            before anything is allocated.
    """

    def __init__(self, cfg: Cfg, height: int | None = None, width: int | None = None):
        net = values(cfg.net)
        self.cfg = cfg
        self.net = MappingProxyType(net)
        self.input_shape: Shape = (net["channels"], height or net["height"], width or net["width"])
        self.nodes: list[Node] = []
        self._sizes = [0, volume(self.input_shape)]
        _cap(cfg.net.place_of("width"), "the input", self._sizes[1], MAX_ACTIVATIONS)
        if not any(section.type in HEADS for section in cfg.layers):  # whatever else is wrong with it
            raise CfgError(
                cfg.path, "has no detection layer: it is no detector", "a detector ends in [yolo] or [region]"
            )
        for section in cfg.layers:
            self._add(section)
        self.heads = tuple(n.index for n in self.nodes if n.type in HEADS)
        self._one_number_of_classes()
        readers: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                if source >= 0:
                    readers[source].append(node.index)
        self.consumers = [tuple(r) for r in readers]
        warn_of_doubts(cfg)  # last, so that an error stands alone

    def _one_number_of_classes(self) -> None:
        first, *others = (self.nodes[i] for i in self.heads)
        for other in others:
            if other.opts["classes"] != first.opts["classes"]:
                raise CfgError(
                    other.section.place_of("classes"),
                    f"{other.opts['classes']} classes, and the [{first.type}] at line "
                    f"{first.section.line} has {first.opts['classes']}",
                    "one number of classes in every head",
                )

    def _add(self, section: Section) -> None:
        opts = values(section)  # raises for an unknown section
        layer = Layer(self, section, opts)
        inputs, shape = RULES[section.type](layer)
        if min(shape[1:]) < 1:
            layer.fail(
                None,
                f"the output would be {shape[2]} x {shape[1]}",
                "an image of at least one pixel",
                f"use a larger input than {self.input_shape[2]} x {self.input_shape[1]}",
            )
        self._sizes[0] += parameters(opts, section.type, tuple(layer.shape(i) for i in inputs), shape)
        self._sizes[1] += volume(shape)
        _cap(section.place, "the parameters up to here", self._sizes[0], MAX_PARAMETERS)
        _cap(section.place, "the feature maps up to here", self._sizes[1], MAX_ACTIVATIONS)
        stride = (Fraction(1) if inputs[0] < 0 else self.nodes[inputs[0]].stride) * scale(section.type, opts)
        if stride > MAX_STRIDE:
            layer.fail(
                "stride",
                f"with this stride one cell would stand for {float(stride):.3g} input pixels",
                f"at most {MAX_STRIDE:,}",
            )
        self.nodes.append(
            Node(
                section.index,
                section.type,
                section,
                inputs,
                tuple(layer.shape(i) for i in inputs),
                shape,
                stride,
                MappingProxyType(opts),
            )
        )

    def __deepcopy__(self, memo) -> Graph:
        return self  # nothing in it changes, so copies of a network may share it

    @property
    def stride(self) -> int:
        """The largest stride of any layer: input sizes should be multiples of it."""
        return max((int(n.stride) for n in self.nodes if n.stride.denominator == 1), default=1)


def input_size(graph: Graph, side: int | None = None) -> tuple[int, int]:
    """(height, width) that a command works at: the square of `side` (`--img_size`), or the cfg's size.

    Darknet accepts sizes that are no multiples of the network's stride where the shapes happen to agree; its
    boxes are then shifted against the image, so commands refuse them before they start.

    Raises:
        RequestError, CfgError: naming the nearest sizes that fit.
    """
    stride = graph.stride
    sizes = (side, side) if side else graph.input_shape[1:]
    for key, size in zip(("height", "width"), sizes, strict=True):
        if size % stride:
            near = max(size // stride, 1) * stride
            place, found = (
                ("--img_size", f"{size}") if side else (graph.cfg.net.place_of(key), f"{key}={size}")
            )
            raise (RequestError if side else CfgError)(
                place,
                f"{found} is no multiple of the network's stride {stride}",
                remedy=f"use {near} or {near + stride}",
            )
    return sizes


def _cap(place: str, what: str, count: int, cap: int) -> None:
    if count > cap:
        raise CfgError(
            place,
            f"{what} would take {count * 4 / 2**30:,.1f} GiB",
            f"at most {cap * 4 / 2**30:,.0f} GiB",
            "check filters, width and height",
        )
