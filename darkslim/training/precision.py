"""Reduced precision, where the machine has it: bfloat16 or float16 autocast around the forward pass.

The loss is always computed in float32, the weights stay float32.
"""

from __future__ import annotations

import torch

from ..base.errors import RequestError

KINDS = ("auto", "bf16", "fp16", "off")


class Precision:
    """Autocast, loss scaling and unscaling of one run.

    Args:
        kind: auto, bf16, fp16 or off. auto: bfloat16 where the CPU or GPU computes with it, float16 on older
            GPUs, else off.

    Raises:
        RequestError: fp16 on a CPU.
    """

    def __init__(self, kind: str, device: torch.device):
        self.device = device
        self.kind = automatic(device) if kind == "auto" else kind
        if self.kind == "fp16" and device.type == "cpu":
            raise RequestError("--amp", "fp16 needs a GPU", "bf16 or off on a CPU")
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[self.kind]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.kind == "fp16")

    def state(self) -> dict:
        """What a resumed run needs: the scale of the loss."""
        return self.scaler.state_dict()

    def load(self, state: dict) -> None:
        """The inverse of `state`."""
        if state:
            self.scaler.load_state_dict(state)

    def autocast(self):
        # the cache keeps weight copies for the backward pass of one forward only, and costs nothing
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def automatic(device: torch.device) -> str:
    """The best kind for a device."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has_bf16() else "off"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512_BF16 or AMX)."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
