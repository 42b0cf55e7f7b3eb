"""Ways in which PyTorch runs a network whose norms are folded: as it is, compiled, in bfloat16; and a
TorchScript file.
"""

from __future__ import annotations

import json
import warnings

import torch
from torch import Tensor

from ..base.errors import FileError, RequestError, one_line
from ..network.darknet import Darknet
from .carried import Carried
from .engine import Engine

ABOUT = "darkslim.json"  # within a TorchScript file
COMPILED = 64  # networks and shapes in one process, before PyTorch gives up compiling


class Torch(Engine):
    """A network without batch norms, its maps channels last.

    Args:
        compiled: by torch.compile, once for every shape. bf16: convolutions in bfloat16.
    """

    def __init__(self, model: Darknet, compiled: bool = False, bf16: bool = False):
        super().__init__(model.cfg)
        self.name = "torch-compiled" if compiled else "torch-bf16" if bf16 else "torch-folded"
        self.network = model.eval().to(memory_format=torch.channels_last)
        self.bf16 = bf16
        if compiled:  # a network of another shape is another program, and both may be compared
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED)
        self.call = torch.compile(self.network, dynamic=False) if compiled else self.network

    def run(self, x: Tensor) -> Tensor:
        x = x.to(self.here.device, memory_format=torch.channels_last)
        try:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
                return self.call(x).float()
        except Exception as e:
            if type(e).__module__.startswith(("torch._inductor", "torch._dynamo")):
                raise RequestError(
                    "--engine torch-compiled",
                    f"PyTorch cannot compile it ({one_line(str(e))[:160]})",
                    "a C++ compiler on this machine",
                ) from None
            raise


class TorchScript(Engine):
    """A file that `torchscript_bytes` made.

    Raises:
        FileError: torch cannot read it, or it is none of this program's.
    """

    name = "torch"

    def __init__(self, source):
        extra = {ABOUT: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that torch.export is to take its place
                network = torch.jit.load(source, map_location="cpu", _extra_files=extra)
            texts = json.loads(extra[ABOUT] or "{}")
        except (RuntimeError, ValueError, OSError, RecursionError) as e:
            reason = one_line(str(e))[:160]
            raise FileError(
                str(source)[:200], f"torch cannot read it ({reason})", "a TorchScript file"
            ) from None
        carried = Carried.of(texts if isinstance(texts, dict) else {}, str(source)[:200])
        super().__init__(carried.cfg, carried.size)
        self.carried, self.network = carried, network

    def run(self, x: Tensor) -> Tensor:
        return self.network(x.to(self.here.device).float())
