"""A network in ncnn's format: NAME.param (the graph as text), NAME.bin (its numbers) and NAME.json (what
it is).

pnnx writes it from an ONNX file of one size that ends before the heads: `in0`, a picture as (C, H, W) float32
in 0..1, to `out0`, `out1`, ..., the maps that the heads decode.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import FileError, RequestError, one_line
from ..base.libraries import library
from ..network.darknet import Darknet
from .onnx_file import metadata, onnx_model

LIMIT = 600  # seconds that pnnx may take


@dataclass(frozen=True)
class NcnnFiles:
    """The contents of the three files."""

    param: str
    bin: bytes
    about: str


def ncnn_files(
    model: Darknet, size: tuple[int, int], names: Sequence[str] = (), half: bool = False
) -> NcnnFiles:
    """The files of a network in eval mode.

    Args:
        half: kernels are stored in float16.

    Raises:
        RequestError: a library is not installed. FileError: pnnx cannot convert it.
    """
    pnnx = library("pnnx")
    made = onnx_model(model, size, raw=True, fixed=True)
    shape = f"inputshape=[1,{model.cfg.channels},{size[0]},{size[1]}]"
    with tempfile.TemporaryDirectory(prefix="darkslim") as folder:
        Path(folder, "net.onnx").write_bytes(made.SerializeToString())
        words = [pnnx.EXEC_PATH, "net.onnx", shape, f"fp16={int(half)}"]
        said = ""
        try:
            said = subprocess.run(
                words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=LIMIT
            ).stderr
            param = Path(folder, "net.ncnn.param").read_text()
            data = Path(folder, "net.ncnn.bin").read_bytes()
        except (OSError, subprocess.TimeoutExpired) as e:
            reason = one_line(said or str(e))[-300:]
            raise FileError(model.cfg.path, f"pnnx cannot convert it ({reason})") from None
    left = re.findall(r"^(pnnx\.\S+|aten\S*|Tensor\.\S+)", param, re.MULTILINE)
    if left:
        raise RequestError(
            "--format ncnn", f"{model.cfg.path}: ncnn has nothing for {', '.join(sorted(set(left)))}"
        )
    about = json.dumps({**metadata(model, size, names), "outputs": len(model.heads)}, indent=1) + "\n"
    return NcnnFiles(_depth_order(param), data, about)


def _depth_order(param: str) -> str:
    """Space to depth in ONNX's order, depth outermost, which is mode 1 of ncnn: pnnx writes the other one."""
    return re.sub(r"^(Reorg .*) 1=0$", r"\1 1=1", param, flags=re.MULTILINE)
