"""The formats by name: what files they are, and how they are made of a network without batch norms."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..network import weights
from ..network.darknet import Darknet
from ..network.twins import twin
from .engines import open_file
from .ncnn_file import ncnn_files
from .openvino_file import openvino_files
from .torchscript_file import torchscript_bytes


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        ends: of its files; the first is the one that is named.
        onnx: whether it is made of an ONNX model, and so can be of 8 bits.
        half: whether it can store float16.
        sizes: of pictures that it takes. batches: of how many at once.
    """

    ends: tuple[str, ...]
    onnx: bool = False
    half: bool = False
    sizes: str = "this one"
    batches: str = "any"


FREE = "any that the network takes"
FORMATS = {
    "onnx": Format((".onnx",), onnx=True, half=True, sizes=FREE),
    "torchscript": Format((".pt",)),
    "openvino": Format((".xml", ".bin"), onnx=True, half=True, sizes=FREE),
    "ncnn": Format((".param", ".bin", ".json"), half=True, batches="1"),
    "darknet": Format((".weights", ".cfg"), sizes=FREE),
}


def contents(
    name: str, model: Darknet, made, size: tuple[int, int], names: Sequence[str], half: bool
) -> dict[str, bytes]:
    """End of a file -> its bytes.

    Args:
        model: without batch norms, on the CPU, in eval mode.
        made: its ONNX model, for the formats that are made of one.
        names: of the classes. half: numbers are stored in float16.

    Raises:
        RequestError: a library is not installed, or a network that the format cannot express.
        FileError: pnnx cannot convert it.
    """
    match name:
        case "onnx":
            return {".onnx": made if isinstance(made, bytes) else made.SerializeToString()}
        case "openvino":
            xml, numbers = openvino_files(made, half)
            return {".xml": xml, ".bin": numbers}
        case "ncnn":
            found = ncnn_files(model, size, names, half)
            return {".param": found.param.encode(), ".bin": found.bin, ".json": found.about.encode()}
        case "torchscript":
            return {".pt": torchscript_bytes(model, size, names)}
    return {".weights": weights.weights_bytes(model, 0), ".cfg": model.cfg.to_bytes()}


def reopened(name: str, found: Mapping[str, bytes]) -> torch.nn.Module:
    """What runs these very bytes.

    Raises:
        FileError: they cannot be read back.
    """
    with tempfile.TemporaryDirectory(prefix="darkslim") as folder:
        for end, data in found.items():
            Path(folder, f"net{end}").write_bytes(data)
        first = str(Path(folder, f"net{FORMATS[name].ends[0]}"))
        if name == "darknet":
            return weights.load_model(str(Path(folder, "net.cfg")), first).eval()
        return open_file(first)


def halved(name: str, model: Darknet) -> Darknet:
    """The network with the numbers that a file in float16 holds: kernels, and but for ncnn biases as well."""
    found = twin(model, "cpu", torch.float32).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            if name != "ncnn" or parameter.dim() > 1:
                parameter.copy_(parameter.half().float())
    return found
