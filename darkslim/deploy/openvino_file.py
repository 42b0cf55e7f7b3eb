"""A network in OpenVINO's own format: NAME.xml (the graph) and NAME.bin (its numbers)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ..base.libraries import library
from .engine_openvino import INFO
from .openvino_steps import spare


def openvino_files(made, half: bool = False) -> tuple[bytes, bytes]:
    """The .xml and .bin of an ONNX model of `onnx_model`.

    Args:
        half: numbers are stored in float16, and used as such where the processor can.

    Raises:
        RequestError: OpenVINO is not installed.
    """
    openvino = library("openvino")
    model = openvino.Core().read_model(made.SerializeToString())
    spare(model)
    texts = {entry.key: entry.value for entry in made.metadata_props}
    model.set_rt_info(json.dumps(texts), list(INFO))
    with tempfile.TemporaryDirectory(prefix="darkslim") as folder:
        path = Path(folder, "net.xml")
        openvino.save_model(model, path, compress_to_fp16=half)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
