"""A network as ONNX: pictures in, decoded boxes out, any batch; any size, where the exporter can follow how
sizes run through the network, else the one that is asked for.

    input   images (batch, channels, height, width) float32, 0..1, RGB
    output  boxes (batch, boxes, 5 + classes) float32: centre x, centre y, width, height in input pixels,
            objectness, class probabilities

The file carries its cfg, the names of the classes and what must be done to a picture, as metadata.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Sequence

import torch

from ..base.errors import RequestError
from ..network import schema
from ..network.darknet import Darknet

OPSET = 18
INPUT, OUTPUT = "images", "boxes"


def onnx_bytes(model: Darknet, size: tuple[int, int], names: Sequence[str] = ()) -> bytes:
    """The ONNX file of a network in eval mode on the CPU.

    Args:
        size: (height, width) of the input; the metadata `sizes` says whether others do as well.
        names: of the classes.

    Raises:
        RequestError: a library is not installed, or a network that has no detection layer.
    """
    onnx = library("onnx")
    library("onnxscript")
    if not model.heads:
        raise RequestError("--format onnx", f"{model.cfg.path} has no detection layer", "a detector")
    try:
        made, sizes = _program(model, size, free_sizes=True), "any that the network takes"
    except Exception:  # the exporter's algebra of sizes does not know every network's
        made, sizes = _program(model, size, free_sizes=False), "this one"
    for key, value in {**metadata(model, size, names), "sizes": sizes}.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(made)
    stream = io.BytesIO()
    onnx.save_model(made, stream)
    return stream.getvalue()


def _program(model: Darknet, size: tuple[int, int], free_sizes: bool):
    """The ONNX model, its batch free, and its height and width where the exporter can follow them.

    Raises:
        Exception: whatever the exporter raises for a network that it cannot follow.
    """
    free = torch.export.Dim.AUTO
    shapes = {0: free, 2: free, 3: free} if free_sizes else {0: free}
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                model,
                (torch.zeros(2, model.cfg.channels, *size),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                dynamic_shapes=(shapes,),
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        loud.setLevel(level)
    return program.model_proto


def metadata(model: Darknet, size: tuple[int, int], names: Sequence[str]) -> dict[str, str]:
    """What a program needs to know beside the graph, as texts."""
    letterbox = bool(schema.values(model.cfg.net)["letter_box"])
    return {
        "cfg": model.cfg.text,
        "names": json.dumps(list(names)),
        "anchors": json.dumps([list(head.anchors) for head in model.heads]),
        "strides": json.dumps([head.stride for head in model.heads]),
        "input_size": json.dumps(list(size)),
        "input_rule": "letterbox, grey 127" if letterbox else "stretch",
        "input_values": "RGB, 0..1" if model.cfg.channels == 3 else "grey, 0..1",
        "boxes": "centre x, centre y, width, height in input pixels, objectness, class probabilities",
    }


def library(name: str):
    """A library that only some formats and engines need.

    Raises:
        RequestError: it is not installed, with how to install it.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise RequestError(name, "is not installed", remedy=f"pip install {name}") from None
