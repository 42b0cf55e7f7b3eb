"""A network run by ONNX Runtime, where this program expects one of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base.errors import FileError
from .onnx_file import INPUT, OUTPUT, library


class OnnxNetwork(nn.Module):
    """An exported network: pictures in, decoded boxes out, as `Darknet` in eval mode gives them.

    Args:
        source: path of a .onnx file, or its bytes. threads: of the processor; 0: as many as there are.

    Raises:
        RequestError: ONNX Runtime is not installed. FileError: it cannot read the file.
    """

    def __init__(self, source, threads: int = 0):
        super().__init__()
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        data = source if isinstance(source, bytes) else str(source)
        try:
            self.session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # of the library: one kind for each thing that may be wrong with a file
            place = "the exported network" if isinstance(source, bytes) else source
            reason = str(e).split("\n")[0][:200]
            raise FileError(place, f"ONNX Runtime cannot read it ({reason})", "an ONNX file") from None
        self.here = nn.Parameter(torch.zeros(0), requires_grad=False)  # says which device it is on

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float, 0..1 -> (B, boxes, 5 + classes)."""
        (boxes,) = self.session.run([OUTPUT], {INPUT: x.detach().float().contiguous().cpu().numpy()})
        return torch.from_numpy(boxes)

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says beside the graph."""
        return dict(self.session.get_modelmeta().custom_metadata_map)
