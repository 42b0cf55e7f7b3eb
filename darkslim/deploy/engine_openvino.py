"""A network run by OpenVINO."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from ..base.errors import FileError, RequestError
from ..base.libraries import library
from .carried import KEYS, Carried
from .engine import Engine
from .onnx_file import OUTPUT
from .openvino_steps import spare

INFO = ("darkslim", "network")  # where an .xml keeps what it says about itself
KEPT = 4  # batches of different lengths that stay compiled


class OpenVino(Engine):
    """An .xml (its .bin beside it) or .onnx file, or the bytes of the latter.

    The network is compiled for every shape that comes, for fixed shapes are quicker; the last few are kept.

    Args:
        precision: "f32" or "bf16": of the arithmetic, where the processor has it. threads: 0: as many as
            torch uses.

    Raises:
        RequestError: OpenVINO is not installed, or a precision that this processor has not got.
        FileError: it cannot read the file, or the file is none of this program's.
    """

    name = "openvino"

    def __init__(self, source, precision: str = "f32", threads: int = 0):
        openvino = library("openvino")
        core = openvino.Core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in able:
            raise RequestError(
                "--engine openvino-bf16", f"this processor has {', '.join(able)}", "one with bfloat16"
            )
        place = "the exported network" if isinstance(source, bytes) else source
        try:
            model = core.read_model(source if isinstance(source, bytes) else str(source))
        except Exception as e:  # RuntimeError of many kinds
            reason = " ".join(str(e).split())[-200:]
            raise FileError(
                place, f"OpenVINO cannot read it ({reason})", "an .xml with its .bin, or an ONNX file"
            ) from None
        carried = Carried.of(_texts(model), place)
        carried.require_boxes([name for one in model.outputs for name in one.get_names()])
        super().__init__(carried.cfg)
        spare(model)
        self.carried, self.core, self.model = carried, core, model
        self.options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        self.compiled: dict[tuple[int, ...], object] = {}

    def run(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        request = self.compiled.pop(shape, None)
        if request is None:
            self.model.reshape(list(shape))
            request = self.core.compile_model(self.model, "CPU", self.options).create_infer_request()
            while len(self.compiled) >= KEPT:
                self.compiled.pop(next(iter(self.compiled)))
        self.compiled[shape] = request
        request.infer([x.detach().float().contiguous().cpu().numpy()], share_inputs=True)
        return torch.from_numpy(request.get_tensor(OUTPUT).data.copy())


def _texts(model) -> dict[str, str]:
    """What the file says about itself: an .xml in one text, for XML folds the lines of a cfg."""
    if model.has_rt_info(list(INFO)):
        try:
            return dict(json.loads(model.get_rt_info(list(INFO)).astype(str)))
        except (ValueError, TypeError):
            return {}
    keys = [key for key in KEYS if model.has_rt_info(["framework", key])]  # of an ONNX file
    return {key: model.get_rt_info(["framework", key]).astype(str) for key in keys}
