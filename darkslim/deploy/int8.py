"""A network in 8 bits: kernels by output channel, feature maps by map, ranges from pictures.

Written as an ONNX file with a pair of QuantizeLinear and DequantizeLinear around what is computed in
integers, which ONNX Runtime and OpenVINO turn into their integer kernels; the steps are those of
network/rounding.py.

Kernels are rounded, and what that adds on the average to every channel of a convolution is taken off its bias
(Nagel et al. 2019, arXiv 1906.04721, section 4.2): error = sum over inputs of (rounded - kernel) *
mean(input).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..base.errors import RequestError
from ..base.libraries import library
from ..network.darknet import Darknet
from ..network.rounding import head_layers, rounded, spread, stepped
from ..network.twins import twin
from .onnx_file import INPUT, onnx_model

NOISE = 4  # pictures, where only the time counts
KINDS = ("Conv", "LeakyRelu", "Relu", "MaxPool", "Concat", "Resize", "Add")  # what becomes integers
PERCENTILE = 99.999  # few values lie far out, and all others would have coarser steps for them


def corrected(model: Darknet, batches: Iterable[Tensor], kept: Sequence[int] = ()) -> Darknet:
    """The network with biases that make up for the rounding of its kernels, which stay as they are.

    Args:
        model: without batch norms, on the CPU, in eval mode.
        batches: pictures (B, C, H, W) in 0..1, from which the mean of every input channel is taken.
        kept: layers that are not rounded.
    """
    convolutions = {i: conv for i, conv in model.convolutions().items() if i not in kept}
    sums = {i: torch.zeros(conv.in_channels, dtype=torch.float64) for i, conv in convolutions.items()}
    seen = 0

    def looker(index: int):
        def look(_, inputs) -> None:
            sums[index] += inputs[0].double().mean((2, 3)).sum(0)

        return look

    hooks = [conv.register_forward_pre_hook(looker(i)) for i, conv in convolutions.items()]
    try:
        with torch.inference_mode():
            for images in batches:
                model(images)
                seen += len(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = twin(model, "cpu", torch.float32).eval()
    with torch.no_grad():
        for i, conv in found.convolutions().items():
            if i in convolutions and conv.bias is not None and seen:
                error = (rounded(conv.weight) - conv.weight).double().sum((2, 3))  # (filters, C / groups)
                means = (sums[i] / seen).view(conv.groups, 1, -1)
                shift = (error.view(conv.groups, -1, error.shape[1]) * means).sum(2).flatten()
                conv.bias -= shift.to(conv.bias.dtype)
    return found


def sensitivities(model: Darknet, images: Tensor) -> dict[int, float]:
    """Layer -> what rounding its kernels and its input alone does to what goes into the heads: the mean
    squared error as a share of the mean square.

    Args:
        model: without batch norms. images: (B, C, H, W) in 0..1.
    """
    with torch.inference_mode():
        wanted = [raw.double() for raw in model.raw_heads(images)]
        scale = sum(float(raw.square().mean()) for raw in wanted)
        found = {}
        for i, conv in model.convolutions().items():
            kernel = conv.weight.clone()
            hook = conv.register_forward_pre_hook(lambda _, inputs: (stepped(inputs[0], *spread(inputs[0])),))
            try:
                conv.weight.copy_(rounded(kernel))
                made = model.raw_heads(images)
            finally:
                conv.weight.copy_(kernel)
                hook.remove()
            error = sum(float((a.double() - b).square().mean()) for a, b in zip(made, wanted, strict=True))
            found[i] = error / max(scale, 1e-30)
    return found


class Ranges:
    """What the feature maps of a network are like on some pictures, looked at once for all networks of 8
    bits that differ in nothing but the layers that stay in float32.

    Args:
        pictures: (1, C, H, W) float32 in 0..1 each; a map's range is what PERCENTILE percent of its values on
            them lie in.
    """

    def __init__(self, pictures: Sequence[np.ndarray]):
        self.pictures = pictures
        self._folder = tempfile.TemporaryDirectory(prefix="darkslim")

    def __enter__(self) -> Ranges:
        return self

    def __exit__(self, *_) -> None:
        self._folder.cleanup()

    def int8_bytes(self, made, kept: Sequence[int] = ()) -> bytes:
        """The ONNX file of a model of `onnx_model` in 8 bits.

        Args:
            kept: layers that stay in float32, as does everything after the heads' maps; those of the first
                call stay so in all that follow.

        Raises:
            RequestError: ONNX Runtime is not installed, or the network makes values that are not finite.
        """
        q = library("onnxruntime.quantization")
        scopes, decoding = {f"layer_{i}" for i in kept}, _decoding(made)
        body = [
            node.name
            for node in made.graph.node
            if node.op_type in KINDS and node.name.split("/")[0] not in scopes and node.name not in decoding
        ]
        folder = Path(self._folder.name)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                q.quantize_static(
                    library("onnx").load_from_string(made.SerializeToString()),
                    str(folder / "int8.onnx"),
                    _reader(q, self.pictures),
                    calibration_cache_path=folder / "ranges.json",
                    quant_format=q.QuantFormat.QDQ,
                    calibrate_method=q.CalibrationMethod.Percentile,
                    per_channel=True,
                    reduce_range=True,
                    activation_type=q.QuantType.QUInt8,
                    weight_type=q.QuantType.QInt8,
                    op_types_to_quantize=list(KINDS),
                    nodes_to_quantize=body,
                    extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
                )
            return (folder / "int8.onnx").read_bytes()
        except ValueError as e:
            if "not finite" not in str(e):  # numpy's, of a map that holds an infinity
                raise
            raise RequestError(
                "--int8",
                f"maps of this network have no ranges on these pictures ({e})",
                "export without --int8",
            ) from None
        finally:
            root.setLevel(level)


def of_noise(model: Darknet, size: tuple[int, int]) -> bytes:
    """The ONNX file of a network in 8 bits but for its heads, with ranges from noise: for its time alone.

    Args:
        model: without batch norms, on the CPU, in eval mode. size: (height, width) that it is meant for.

    Raises:
        RequestError: a library is not installed, or a network that ONNX cannot express.
    """
    draw = np.random.default_rng(0)
    pictures = [draw.random((1, model.cfg.channels, *size), np.float32) for _ in range(NOISE)]
    with Ranges(pictures) as ranges:
        return ranges.int8_bytes(onnx_model(model, size), head_layers(model))


def _reader(q, pictures: Sequence[np.ndarray]):
    """Gives picture by picture, for the maps of all layers of what is read at once are held together."""

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.items = iter(())

        def __len__(self):
            return len(pictures)

        def set_range(self, start_index: int, end_index: int):
            self.items = iter(pictures[start_index:end_index])

        def get_next(self):
            picture = next(self.items, None)
            return None if picture is None else {INPUT: picture}

    return Reader()


def _decoding(made) -> set[str]:
    """Names of the nodes that turn a head's map into boxes, where 8 bits would move them by pixels."""
    found: set[str] = set()
    tensors: set[str] = set()
    for node in made.graph.node:  # in the order in which they run
        if node.name.split("/")[-1].startswith("cells") or tensors & set(node.input):
            found.add(node.name)
            tensors |= set(node.output)
    return found
