"""A network run by ONNX Runtime."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base.errors import FileError
from ..base.libraries import library
from .carried import Carried
from .engine import Engine
from .onnx_file import INPUT, OUTPUT


class OnnxRuntime(Engine):
    """A .onnx file, or its bytes.

    Args:
        threads: of the processor; 0: as many as torch uses.

    Raises:
        RequestError: ONNX Runtime is not installed. FileError: it cannot read the file, or the file is none
            of this program's.
    """

    name = "onnxruntime"

    def __init__(self, source, threads: int = 0):
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        data = source if isinstance(source, bytes) else str(source)
        place = "the exported network" if isinstance(source, bytes) else source
        try:
            session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # of the library: one kind for each thing that may be wrong with a file
            reason = str(e).split("\n")[0][:200]
            raise FileError(place, f"ONNX Runtime cannot read it ({reason})", "an ONNX file") from None
        carried = Carried.of(session.get_modelmeta().custom_metadata_map, place)
        carried.require_boxes([one.name for one in session.get_outputs()])
        super().__init__(carried.cfg)
        self.session, self.carried = session, carried

    def run(self, x: Tensor) -> Tensor:
        (boxes,) = self.session.run([OUTPUT], {INPUT: x.detach().float().contiguous().cpu().numpy()})
        return torch.from_numpy(boxes)
