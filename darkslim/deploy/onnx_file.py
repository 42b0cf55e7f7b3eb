"""A network as ONNX: pictures in, decoded boxes out, any batch and any size that the network takes.

    input   images (batch, channels, height, width) float32, 0..1, RGB
    output  boxes (batch, boxes, 5 + classes) float32: centre x, centre y, width, height in input pixels,
            objectness, class probabilities

or, with suppression inside,

    output  detections (found, 7) float32: picture, left, top, right, bottom in input pixels, score, class

The graph is written from the network's own, layer by layer, under names that say which layer of the cfg it is
(`layer_12/conv`). The file carries its cfg, the names of the classes and what must be done to a picture, as
metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.errors import RequestError
from ..base.libraries import library
from ..network import schema
from ..network.darknet import Darknet
from .onnx_nodes import WRITERS, GraphWriter, boxes, stored_map

OPSET, IR = 18, 8
INPUT, OUTPUT, DETECTIONS = "images", "boxes", "detections"
MOST_BYTES = (1 << 31) - (1 << 20)  # of one protocol buffer
MOST_A_CLASS = 3000  # detections of a class in a picture that suppression inside may leave


@dataclass(frozen=True)
class Suppression:
    """Thresholds of the suppression that a file does itself, as `evaluation.detections` takes them."""

    conf_thres: float
    nms_thres: float


def onnx_model(
    model: Darknet,
    size: tuple[int, int],
    names: Sequence[str] = (),
    *,
    half: bool = False,
    suppression: Suppression | None = None,
    raw: bool = False,
    fixed: bool = False,
):
    """The ONNX model (a ModelProto) of a network in eval mode on the CPU.

    Args:
        size: (height, width) that it is meant for; it runs at others as well.
        names: of the classes.
        half: kernels and biases are stored in float16; the arithmetic stays float32.
        suppression: done inside, on request.
        raw: in place of boxes the map that goes into each head, `raw_N`, for programs that know few
            operators.
        fixed: pictures of this size only, one at a time.

    Raises:
        RequestError: a library is not installed, or a network that ONNX cannot express.
    """
    onnx = library("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    g = GraphWriter(onnx, half)
    outputs: list[str] = []
    found: list[str] = []
    heads = {head.index: head for head in model.heads}
    read = {source for node in model.graph.nodes for source in node.inputs}
    try:
        for node, module in zip(model.graph.nodes, model.module_list, strict=True):
            g.scope = f"layer_{node.index}/"
            x = WRITERS[node.type](g, node, module, [INPUT if i < 0 else outputs[i] for i in node.inputs])
            if node.index in heads and raw:
                g.nodes.append(helper.make_node("Identity", [x], [f"raw_{len(found)}"]))
                found.append(f"raw_{len(found)}")
            elif node.index in heads:
                found.append(boxes(g, heads[node.index], x, INPUT))
                x = stored_map(g, heads[node.index], x) if node.index in read else x
            outputs.append(x)
    except NotImplementedError as e:
        raise RequestError("--format onnx", f"{model.cfg.path}: ONNX has nothing for {e}") from None
    g.scope = ""
    if raw:
        wide = [len(head.mask) * (5 + head.classes) for head in model.heads]
        results = [
            helper.make_tensor_value_info(name, real, ["batch", c, f"rows_{name}", f"columns_{name}"])
            for name, c in zip(found, wide, strict=True)
        ]
    else:
        results = [_output(g, found, 5 + model.heads[0].classes, suppression)]
    shape = [1, model.cfg.channels, *size] if fixed else ["batch", model.cfg.channels, "height", "width"]
    graph = helper.make_graph(
        g.nodes,
        "darknet",
        [helper.make_tensor_value_info(INPUT, real, shape)],
        results,
        list(g.constants.values()),
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="darkslim"
    )
    for key, value in metadata(model, size, names).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    if made.ByteSize() > MOST_BYTES:
        raise RequestError("--format onnx", f"{made.ByteSize():,} bytes", f"at most {MOST_BYTES:,}")
    onnx.checker.check_model(made)
    return made


def _output(g: GraphWriter, found: list[str], columns: int, suppression: Suppression | None):
    """Adds the output, and gives its description."""
    describe, real = g.onnx.helper.make_tensor_value_info, g.onnx.TensorProto.FLOAT
    joined = found[0] if len(found) == 1 else g.op("Concat", found, axis=1)
    if suppression is None:
        g.nodes.append(g.onnx.helper.make_node("Identity", [joined], [OUTPUT], name=OUTPUT))
        return describe(OUTPUT, real, ["batch", "boxes", columns])
    last = _suppressed(g, joined, suppression)
    g.nodes.append(g.onnx.helper.make_node("Identity", [last], [DETECTIONS], name=DETECTIONS))
    return describe(DETECTIONS, real, ["found", 7])


def _suppressed(g: GraphWriter, joined: str, wanted: Suppression) -> str:
    """(B, boxes, 5 + classes) -> (found, 7). A box stands for its best class, if its objectness passes."""
    g.scope = "suppression/"
    ints, real = np.int64, g.onnx.TensorProto.FLOAT

    def columns(first: int, last: int) -> str:
        ends = (g.constant([value], ints) for value in (first, last, 2))
        return g.op("Slice", [joined, *ends], "columns")

    centre, half_size = columns(0, 2), g.op("Mul", [columns(2, 4), g.constant(0.5)])
    corners = g.op(
        "Concat", [g.op("Sub", [centre, half_size]), g.op("Add", [centre, half_size])], "corners", axis=2
    )
    objectness, probabilities = columns(4, 5), columns(5, 1 << 30)
    passes = g.op("GreaterOrEqual", [objectness, g.constant(wanted.conf_thres)])
    best = g.op("ReduceMax", [probabilities, g.constant([2], ints)], "best", keepdims=1)
    first = g.op("ArgMax", [probabilities], "class", axis=2, keepdims=1)  # the first of equals, as numpy's
    number = g.op("Shape", [probabilities])
    every = g.op(
        "Range",
        [
            g.constant(0, ints),
            g.op("Squeeze", [g.op("Gather", [number, g.constant([2], ints)], axis=0), g.constant([0], ints)]),
            g.constant(1, ints),
        ],
    )
    counts = g.op("And", [g.op("Equal", [first, every]), passes])
    score = g.op("Mul", [objectness, best])
    scores = g.op("Where", [counts, score, g.constant(0.0)])
    scores = g.op("Transpose", [scores], perm=[0, 2, 1])  # (B, classes, boxes)
    chosen = g.op(
        "NonMaxSuppression",
        [corners, scores, g.constant(MOST_A_CLASS, ints), g.constant(wanted.nms_thres), g.constant(0.0)],
        "suppression",
    )  # rows of picture, class, box

    def column(of: str, index: int) -> str:
        return g.op("Gather", [of, g.constant([index], ints)], axis=1)

    place = g.op("Concat", [column(chosen, 0), column(chosen, 2)], axis=1)
    return g.op(
        "Concat",
        [
            g.op("Cast", [column(chosen, 0)], to=real),
            g.op("GatherND", [corners, place]),
            g.op("GatherND", [score, place]),
            g.op("Cast", [column(chosen, 1)], to=real),
        ],
        axis=1,
    )


def metadata(model, size: tuple[int, int], names: Sequence[str]) -> dict[str, str]:
    """What a program needs to know beside the graph, as texts; the cfg is of the size that is meant."""
    cfg = model.cfg
    if model.graph.input_shape[1:] != tuple(size):
        cfg = cfg.copy()
        cfg.net.set("height", size[0])
        cfg.net.set("width", size[1])
    letterbox = bool(schema.values(model.cfg.net)["letter_box"])
    return {
        "cfg": cfg.text,
        "names": json.dumps(list(names)),
        "anchors": json.dumps([list(head.anchors) for head in model.heads]),
        "strides": json.dumps([head.stride for head in model.heads]),
        "input_size": json.dumps(list(size)),
        "input_rule": "letterbox, grey 127" if letterbox else "stretch",
        "input_values": "RGB, 0..1" if model.cfg.channels == 3 else "grey, 0..1",
        "boxes": "centre x, centre y, width, height in input pixels, objectness, class probabilities",
    }
