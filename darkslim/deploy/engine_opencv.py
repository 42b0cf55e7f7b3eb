"""A network run by OpenCV's own inference."""

from __future__ import annotations

import numpy as np
import torch

from ..base.errors import FileError, one_line
from ..base.libraries import library
from ..network.darknet import Darknet
from .onnx_file import INPUT, onnx_model
from .raw_engine import RawEngine


class OpenCv(RawEngine):
    """A network in eval mode, handed over as an ONNX file up to its heads.

    Raises:
        RequestError: a library is not installed. FileError: OpenCV has no layer for something in it.
    """

    name = "opencv"

    def __init__(self, model: Darknet, size: tuple[int, int], threads: int = 0):
        super().__init__(model.cfg, size)
        cv2 = library("cv2")
        data = onnx_model(model, size, raw=True, fixed=True).SerializeToString()
        cv2.setNumThreads(threads or torch.get_num_threads())
        try:
            self.net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
            self.outputs = [f"raw_{i}" for i in range(len(self.heads))]
        except cv2.error as e:
            raise FileError(
                model.cfg.path, f"OpenCV cannot run it ({one_line(str(e))[-200:]})", "layers that it has"
            ) from None

    def maps(self, x: np.ndarray) -> list[np.ndarray]:
        self.net.setInput(x, INPUT)
        return list(self.net.forward(self.outputs))
