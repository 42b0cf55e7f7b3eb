"""Export as a job: the network in another format, run by that format's own program and compared before the
job says that it is done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..base import devices, files
from ..base.errors import DarkslimError, ProofError, RequestError
from ..base.observer import Observer
from ..base.options import choice, count, option, switch, text
from ..base.signals import StopFlag
from ..data import datafile
from ..deploy.onnx_file import library, onnx_bytes
from ..deploy.onnx_runtime import OnnxNetwork
from ..network import weights
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..pruning.fuse import fuse, prove_fused
from .compress_settings import Compressing
from .score import Scores

FORMATS = ("onnx",)
ABSOLUTE, RELATIVE = 1e-2, 1e-3  # pixels, and shares of a value, by which another program may differ
RANDOM = 4  # pictures of noise, where no data set is at hand


@dataclass(frozen=True)
class ExportSettings(Compressing):
    """Settings of `export`."""

    format: str = option("onnx", choice(*FORMATS), "of what is written")
    fuse_bn: bool = option(
        False, switch, "fold batch norms into convolutions first (ONNX Runtime does so itself)", "--fuse-bn"
    )
    out: str | None = option(None, text, "the file; none: --weights with .onnx", metavar="FILE")
    batch_size: int = option(8, count(1), "pictures at once when measuring mAP")


def export(settings: ExportSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Writes the network in another format, after that format's program gave the same boxes.

    Returns:
        file, format, bytes, max_abs_diff (pixels, on pictures of `valid` or of noise), compared (pictures),
        map50_float, map50_exported, sizes ("any that the network takes" or "this one"), seconds.

    Raises:
        DarkslimError: an input or a setting is wrong, a library is missing, or the boxes differ; nothing was
            written.
    """
    began = time.perf_counter()
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    out = exported_path(settings)
    files.check_outputs({"--out": out}, settings.reads())
    for name in ("onnx", "onnxscript", "onnxruntime"):
        library(name)
    devices.seed_everything(settings.seed)
    model = weights.load_model(settings.model_def, settings.weights)
    size = input_size(model.graph, settings.img_size)
    with Scores(settings, model, observer, stop) as scores:
        before = scores.of(model)
        if settings.fuse_bn:
            fused = fuse(model)
            prove_fused(model, fused, seed=settings.seed)
            model = fused
        observer.say("exporting, which takes up to some minutes")
        data = onnx_bytes(model, size, class_names(settings))
        stop.check("stopped; nothing was written")
        network = OnnxNetwork(data)
        differs, pictures = compare(model, network, scores, size)
        after = scores.of(network)
    files.save(out, data)
    return {
        "file": out,
        "format": settings.format,
        "bytes": len(data),
        "max_abs_diff": differs,
        "compared": pictures,
        "map50_float": before,
        "map50_exported": after,
        "img_size": size,
        "sizes": network.metadata["sizes"],
        "seconds": time.perf_counter() - began,
    }


def exported_path(settings: ExportSettings) -> Path:
    """Where the file goes.

    Raises:
        RequestError: a name of another kind of file.
    """
    path = Path(settings.out) if settings.out else Path(settings.weights).with_suffix(".onnx")
    if path.suffix != ".onnx":
        raise RequestError("--out", str(path), "a name that ends in .onnx")
    return path


def class_names(settings: ExportSettings) -> list[str]:
    """The names of the data set, where there is one."""
    try:
        return datafile.read_data(settings.data_config).names
    except DarkslimError:
        if not settings.no_eval:
            raise
        return []


def compare(model: Darknet, network: OnnxNetwork, scores: Scores, size) -> tuple[float, int]:
    """The largest difference of any number of the boxes, in pixels or shares, and on how many pictures.

    Raises:
        ProofError: more than another program's rounding.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(RANDOM, model.cfg.channels, *size, generator=generator)]
    if scores.loader is not None:
        images, _ = next(iter(scores.loader))
        batches.append(images.float() / 255)
    most, pictures = 0.0, 0
    for images in batches:
        with torch.inference_mode():
            mine, its = model(images).numpy(), network(images).numpy()
        if mine.shape != its.shape:
            raise ProofError("the exported network", f"gives boxes {its.shape}", f"{mine.shape}")
        apart = np.abs(mine - its)
        if not (apart <= ABSOLUTE + RELATIVE * np.abs(mine)).all():
            raise ProofError(
                "the exported network", f"differs by {float(apart.max()):.3g}", "the boxes of PyTorch"
            )
        most, pictures = max(most, float(apart.max())), pictures + len(images)
    return most, pictures
