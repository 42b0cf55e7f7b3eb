"""A network as TorchScript, for libtorch: pictures of one size in, decoded boxes out, any batch."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence

import torch

from ..network.darknet import Darknet
from .engine_torch import ABOUT
from .onnx_file import metadata


def torchscript_bytes(model: Darknet, size: tuple[int, int], names: Sequence[str] = ()) -> bytes:
    """The file of a network in eval mode on the CPU.

    Args:
        size: (height, width), the only one that it takes.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: what depends on the size is fixed, as is said above
        traced = torch.jit.trace(model.eval(), torch.zeros(2, model.cfg.channels, *size), check_trace=False)
        torch.jit.save(traced, stream, _extra_files={ABOUT: json.dumps(metadata(model, size, names))})
    return stream.getvalue()
