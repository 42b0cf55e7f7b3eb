"""Section type -> nodes of ONNX: one row a type in `WRITERS`.

A writer gets the names of the tensors that its layer reads and gives the name of what it makes. Only
operators of ONNX's own set are used, those that other programs know, and height and width are nowhere
written down, so that one file takes every size that the network takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..network.heads import Head
from ..network.node import Node


class GraphWriter:
    """Collects the nodes and constants of a graph.

    Args:
        onnx: the library. half: kernels and biases are stored in float16 and widened where they are used.
    """

    def __init__(self, onnx, half: bool = False):
        self.onnx, self.half = onnx, half
        self.nodes: list = []
        self.constants: dict[str, object] = {}
        self.scope = ""

    def op(self, kind: str, inputs: Sequence[str], name: str = "", outputs: int = 1, **attributes):
        """Adds a node and returns the name of its output, or their names where there are several."""
        name = self._free(f"{self.scope}{name or kind.lower()}")
        made = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, values, dtype=np.float32, name: str = "") -> str:
        """The name of a constant; small ones that say the same are one."""
        array = np.ascontiguousarray(np.asarray(values, dtype))
        key = name and f"{self.scope}{name}"
        if not key:
            key = (
                f"c_{array.dtype.name}_{'x'.join(map(str, array.shape)) or 'scalar'}_{array.tobytes().hex()}"
            )
            if len(key) > 80:
                key = self._free(f"{self.scope}constant")
        if key not in self.constants:
            self.constants[key] = self.onnx.numpy_helper.from_array(array, key)
        return key

    def weight(self, values: np.ndarray, name: str) -> str:
        """A kernel, bias or factor: in half precision if the file is to be small."""
        if not self.half:
            return self.constant(values, np.float32, name)
        stored = self.constant(np.asarray(values, np.float32).astype(np.float16), np.float16, name)
        return self.op("Cast", [stored], f"{name}.wide", to=self.onnx.TensorProto.FLOAT)

    def _free(self, name: str) -> str:
        taken = self.__dict__.setdefault("_taken", set())
        number, found = 1, name
        while found in taken:
            number += 1
            found = f"{name}.{number}"
        taken.add(found)
        return found

    def side(self, tensor: str, axis: int) -> str:
        """The length of an axis, as a constant of shape (1,) that is known when the graph runs."""
        shape = self.op("Shape", [tensor], "shape")
        return self.op("Gather", [shape, self.constant([axis], np.int64)], "side", axis=0)


Writer = Callable[[GraphWriter, Node, object, list[str]], str]


def activation(g: GraphWriter, name: str, x: str) -> str:
    """An activation by its Darknet name."""
    c = g.constant
    match name:
        case "linear":
            return x
        case "leaky":
            return g.op("LeakyRelu", [x], name, alpha=0.1)
        case "relu" | "elu" | "selu" | "tanh" | "mish":
            attributes = {"alpha": 1.0} if name == "elu" else {}
            return g.op(name.capitalize(), [x], name, **attributes)
        case "relu6":
            return g.op("Clip", [x, c(0.0), c(6.0)], name)
        case "hardtan":
            return g.op("Clip", [x, c(-1.0), c(1.0)], name)
        case "logistic":
            return g.op("Sigmoid", [x], name)
        case "loggy":
            return g.op("Sub", [g.op("Mul", [g.op("Sigmoid", [x]), c(2.0)]), c(1.0)], name)
        case "swish":
            return g.op("Mul", [x, g.op("Sigmoid", [x])], name)
        case "gelu":  # the tanh form, as Darknet has it
            cube = g.op("Mul", [g.op("Mul", [x, x]), x])
            inner = g.op("Add", [x, g.op("Mul", [cube, c(0.044715)])])
            tanh = g.op("Tanh", [g.op("Mul", [inner, c(math.sqrt(2 / math.pi))])])
            return g.op("Mul", [g.op("Mul", [x, c(0.5)]), g.op("Add", [tanh, c(1.0)])], name)
    raise NotImplementedError(name)


def _numbers(tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()


def _convolutional(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    o, i = node.opts, node.index
    conv, bn = getattr(module, f"conv_{i}"), getattr(module, f"batch_norm_{i}", None)
    names = [*inputs, g.weight(_numbers(conv.weight), "weight")]
    if conv.bias is not None:
        names.append(g.weight(_numbers(conv.bias), "bias"))
    pad = o["padding"] * o["dilation"]
    x = g.op(
        "Conv",
        names,
        "conv",
        kernel_shape=[o["size"]] * 2,
        strides=[o["stride_y"], o["stride_x"]],
        pads=[pad] * 4,
        dilations=[o["dilation"]] * 2,
        group=o["groups"],
    )
    if bn is not None:
        parts = (bn.weight, bn.bias, bn.running_mean, bn.running_var)
        named = zip(parts, ("gamma", "beta", "mean", "variance"), strict=True)
        stored = [g.weight(_numbers(part), name) for part, name in named]
        x = g.op("BatchNormalization", [x, *stored], "norm", epsilon=bn.eps)
    return activation(g, o["activation"], x)


def _maxpool(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    before, after = module.before, module.padding - module.before
    return g.op(
        "MaxPool",
        inputs,
        kernel_shape=[module.size] * 2,
        strides=list(module.stride),
        pads=[before, before, after, after],
    )


def _avgpool(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    return g.op("GlobalAveragePool", inputs)


def _upsample(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    factors = g.constant([1, 1, module.stride, module.stride])
    x = g.op(
        "Resize",
        [inputs[0], "", factors],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return x if module.scale == 1 else g.op("Mul", [x, g.constant(module.scale)])


def _route(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    if module.groups > 1:
        parts = []
        for name, shape in zip(inputs, node.in_shapes, strict=True):
            wide = shape[0] // module.groups
            parts.append(_channels(g, name, wide * module.group, wide * (module.group + 1)))
        inputs = parts
    return inputs[0] if len(inputs) == 1 else g.op("Concat", inputs, axis=1)


def _channels(g: GraphWriter, x: str, first: int, last: int) -> str:
    ends = (g.constant([value], np.int64) for value in (first, last, 1))
    return g.op("Slice", [x, *ends], "channels")


def _shortcut(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    factors = module.factors()
    if factors is not None:
        values = _numbers(factors).reshape(len(inputs), 1, -1, 1, 1)
        parts = [
            g.op("Mul", [x, g.weight(f, f"factor{i}")])
            for i, (x, f) in enumerate(zip(inputs, values, strict=True))
        ]
        total = parts[0]
        for part in parts[1:]:
            total = g.op("Add", [total, part])
        return activation(g, node.opts["activation"], total)
    total, wide = inputs[0], node.shape[0]
    for other, shape in zip(inputs[1:], node.in_shapes[1:], strict=True):
        if shape[0] == wide:
            total = g.op("Add", [total, other])
        elif shape[0] > wide:
            total = g.op("Add", [total, _channels(g, other, 0, wide)])
        else:
            low = g.op("Add", [_channels(g, total, 0, shape[0]), other])
            total = g.op("Concat", [low, _channels(g, total, shape[0], wide)], axis=1)
    return activation(g, node.opts["activation"], total)


def _product(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    return activation(g, node.opts["activation"], g.op("Mul", [inputs[1], inputs[0]]))


def _reorg3d(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    return g.op("SpaceToDepth", inputs, blocksize=module.stride)


def _reorg(g: GraphWriter, node: Node, module, inputs: list[str]) -> str:
    """The buffer read as (C / s^2, s H, s W), space to depth, and read again as (s^2 C, H / s, W / s)."""
    x, s, c = inputs[0], module.stride, node.in_shapes[0][0]
    high, wide, factor = g.side(x, 2), g.side(x, 3), g.constant([s], np.int64)

    def read_as(tensor: str, channels: int, kind: str) -> str:
        sides = [g.op(kind, [side, factor]) for side in (high, wide)]
        parts = [g.constant([0], np.int64), g.constant([channels], np.int64), *sides]
        return g.op("Reshape", [tensor, g.op("Concat", parts, axis=0)])

    deep = g.op("SpaceToDepth", [read_as(x, c // (s * s), "Mul")], blocksize=s)
    return read_as(deep, c * s * s, "Div")


WRITERS: dict[str, Writer] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "upsample": _upsample,
    "dropout": lambda g, node, module, inputs: inputs[0],
    "route": _route,
    "shortcut": _shortcut,
    "sam": _product,
    "scale_channels": _product,
    "reorg": _reorg,
    "reorg3d": _reorg3d,
    "yolo": lambda g, node, module, inputs: inputs[0],
    "region": lambda g, node, module, inputs: inputs[0],
}


def stored_map(g: GraphWriter, head: Head, raw: str) -> str:
    """What a layer that reads a head sees, (B, M * (5 + classes), H, W): the map as Darknet stores it.

    Raises:
        NotImplementedError: a [region], whose stored order no cfg in use reads.
    """
    if head.kind == "region":
        raise NotImplementedError("a layer that reads a [region]")
    xy, wh, rest = _parts(g, head, _cells(g, head, raw))
    flat = g.op("Concat", [xy, wh, rest], axis=2)
    sides = [g.constant([0], np.int64), g.constant([len(head.mask) * (5 + head.classes)], np.int64)]
    target = g.op("Concat", [*sides, g.side(raw, 2), g.side(raw, 3)], axis=0)
    return g.op("Reshape", [flat, target])


def _cells(g: GraphWriter, head: Head, raw: str) -> str:
    """(B, M * (5 + classes), H, W) -> (B, M, 5 + classes, H * W)."""
    return g.op("Reshape", [raw, g.constant([0, len(head.mask), 5 + head.classes, -1], np.int64)], "cells")


def _parts(g: GraphWriter, head: Head, cells: str) -> tuple[str, str, str]:
    """Activated x and y, raw w and h, activated objectness and classes; as `heads.activate`."""
    lengths = g.constant([2, 2, 1 + head.classes], np.int64)
    xy, wh, rest = g.op("Split", [cells, lengths], "parts", outputs=3, axis=2)
    if head.kind == "region":
        lengths = g.constant([1, head.classes], np.int64)
        objectness, scores = g.op("Split", [rest, lengths], "scores", outputs=2, axis=2)
        if head.opts["softmax"]:
            scores = g.op("Softmax", [scores], axis=2)
        else:
            scores = g.op("Sigmoid", [scores])
        rest = g.op("Concat", [g.op("Sigmoid", [objectness]), scores], axis=2)
        return g.op("Sigmoid", [xy]), wh, rest
    if not head.new_coords:
        xy, rest = g.op("Sigmoid", [xy]), g.op("Sigmoid", [rest])
    s = head.scale_x_y
    if s != 1:
        xy = g.op("Sub", [g.op("Mul", [xy, g.constant(s)]), g.constant((s - 1) / 2)])
    return xy, wh, rest


def boxes(g: GraphWriter, head: Head, raw: str, images: str) -> str:
    """All boxes of a head, (B, M * H * W, 5 + classes), as `heads.decode` makes them.

    Args:
        raw: its input map, (B, M * (5 + classes), H, W). images: the network's input, for its size.
    """
    xy, wh, rest = _parts(g, head, _cells(g, head, raw))
    wide, high = g.side(raw, 3), g.side(raw, 2)
    scalar, axes = g.constant(0, np.int64), g.constant([0], np.int64)
    count = g.op("Squeeze", [g.op("Mul", [wide, high]), axes])
    numbers = g.op("Range", [scalar, count, g.constant(1, np.int64)])
    row = g.op("Div", [numbers, wide])
    column = g.op("Sub", [numbers, g.op("Mul", [row, wide])])
    grid = g.op("Concat", [g.op("Unsqueeze", [part, axes]) for part in (column, row)], axis=0)  # (2, H * W)
    real = g.onnx.TensorProto.FLOAT
    sizes = [g.op("Concat", [g.side(x, 3), g.side(x, 2)], axis=0) for x in (images, raw)]
    cell = g.op("Div", [g.op("Cast", [size], to=real) for size in sizes])  # pixels: across, down
    cell = g.op("Unsqueeze", [cell, g.constant([1], np.int64)])
    centre = g.op("Mul", [g.op("Add", [xy, g.op("Cast", [grid], to=real)]), cell])
    anchors = g.constant(np.asarray(head.anchors, np.float32).reshape(1, -1, 2, 1), name="anchors")
    if head.new_coords:
        size = g.op("Mul", [g.op("Mul", [wh, wh]), g.constant(4.0)])
    else:
        size = g.op("Exp", [wh])
    made = g.op("Concat", [centre, g.op("Mul", [size, anchors]), rest], axis=2)
    made = g.op("Transpose", [made], perm=[0, 1, 3, 2])
    return g.op("Reshape", [made, g.constant([0, -1, 5 + head.classes], np.int64)], "boxes")
