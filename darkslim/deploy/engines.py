"""The engines by name, for networks at hand and for exported files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..base.errors import FileError, RequestError
from ..network.darknet import Darknet
from . import int8
from .engine import Engine
from .engine_ncnn import Ncnn
from .engine_onnxruntime import OnnxRuntime
from .engine_opencv import OpenCv
from .engine_openvino import OpenVino
from .engine_torch import Torch, TorchScript
from .ncnn_file import ncnn_files
from .onnx_file import onnx_model

ENGINES = {
    "torch": "PyTorch as it trains",
    "torch-folded": "PyTorch, norms folded, channels last",
    "torch-compiled": "that, through torch.compile (needs a C++ compiler)",
    "torch-bf16": "that, in bfloat16",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO in float32",
    "openvino-bf16": "OpenVINO in bfloat16, where the processor has it",
    "opencv": "OpenCV's dnn module",
    "ncnn": "ncnn",
}
TIMED = {  # those, and what only a time is asked of: pictures that give the ranges are export.py's business
    **ENGINES,
    "onnxruntime-int8": "ONNX Runtime in 8 bits, but for the heads",
    "openvino-int8": "OpenVINO in 8 bits, but for the heads",
}
READERS = {  # end of an exported file -> the engines that read it, the usual one first
    ".onnx": ("onnxruntime", "openvino", "openvino-bf16"),
    ".xml": ("openvino", "openvino-bf16"),
    ".param": ("ncnn",),
    ".pt": ("torch",),
}


def build(name: str, model: Darknet, size: tuple[int, int], threads: int = 0) -> nn.Module:
    """An engine that runs a network, in eval mode on the CPU; for "torch" the network itself.

    Those of 8 bits have ranges from noise: they take the time that the network will take, and their boxes
    mean nothing.

    Args:
        model: without batch norms (`pruning.fuse`), but for "torch".
        size: (height, width) of the pictures to come.
        threads: of the processor; 0: as many as torch uses.

    Raises:
        RequestError: an engine that is not installed, or cannot run here. FileError: it cannot run this
            network.
    """
    match name:
        case "torch":
            return model
        case "torch-folded" | "torch-compiled" | "torch-bf16":
            return Torch(model, compiled=name == "torch-compiled", bf16=name == "torch-bf16")
        case "onnxruntime":
            return OnnxRuntime(onnx_model(model, size).SerializeToString(), threads)
        case "openvino" | "openvino-bf16":
            data = onnx_model(model, size).SerializeToString()
            return OpenVino(data, "bf16" if name == "openvino-bf16" else "f32", threads)
        case "onnxruntime-int8":
            return OnnxRuntime(int8.of_noise(model, size), threads)
        case "openvino-int8":
            return OpenVino(int8.of_noise(model, size), threads=threads)
        case "opencv":
            return OpenCv(model, size, threads)
        case "ncnn":
            return Ncnn(ncnn_files(model, size), threads)
    raise RequestError("--engine", name, "one of " + ", ".join(TIMED))


def open_file(path: str, name: str | None = None, threads: int = 0) -> Engine:
    """An engine that runs an exported file.

    Args:
        name: of the engine; None: the usual one for that kind of file.

    Raises:
        FileError: no such file, or one that the engine cannot read. RequestError: a kind of file that the
            engine does not read, or an engine that is not installed.
    """
    if not Path(path).is_file():
        raise FileError(path, "no such file", "a file that export.py wrote")
    readers = READERS.get(Path(path).suffix)
    if readers is None:
        raise RequestError("--exported", path, "a name that ends in " + ", ".join(READERS))
    name = name or readers[0]
    if name not in readers:
        raise RequestError(
            "--engine", f"{name} does not read {Path(path).suffix} files", "one of " + ", ".join(readers)
        )
    match Path(path).suffix:
        case ".onnx" | ".xml" if name.startswith("openvino"):
            return OpenVino(path, "bf16" if name == "openvino-bf16" else "f32", threads)
        case ".onnx":
            return OnnxRuntime(path, threads)
        case ".param":
            return Ncnn(path, threads)
    return TorchScript(path)
