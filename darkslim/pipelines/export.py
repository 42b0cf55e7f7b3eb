"""Export as a job: the network in another format, run by that format's own program and compared before the
job says that it is done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import evaluation
from ..base import devices, files
from ..base.errors import DarkslimError, ProofError, RequestError
from ..base.libraries import library
from ..base.observer import Observer, watched
from ..base.options import choice, count, option, switch, text
from ..base.signals import StopFlag
from ..data import datafile
from ..deploy import formats
from ..deploy.formats import FORMATS
from ..deploy.onnx_file import DETECTIONS, INPUT, Suppression, onnx_model
from ..network import weights
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..pruning.fuse import fuse, prove_fused
from .compress_settings import Compressing
from .quantizing import Quantized, quantized
from .score import Scores

ABSOLUTE, RELATIVE = 1e-2, 1e-3  # pixels, and shares of a value, by which another program may differ
RANDOM = 4  # pictures of noise, where no data set is at hand
NEEDS = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "ncnn": ("onnx", "pnnx", "ncnn"),
    "torchscript": (),
    "darknet": (),
}


@dataclass(frozen=True)
class ExportSettings(Compressing):
    """Settings of `export`."""

    format: str = option("onnx", choice(*FORMATS), "of what is written")
    int8: bool = option(
        False, switch, "8 bits (onnx, openvino): ranges from pictures, the layers that need it in float32"
    )
    calibrate: str | None = option(
        None,
        text,
        "list of the pictures for --int8; none: `train` of --data_config",
        metavar="LIST",
        reads=True,
    )
    half: bool = option(False, switch, "store float16, half the bytes (onnx, openvino, ncnn)")
    nms: bool = option(
        False, switch, "suppress inside, by --conf_thres and --nms_thres: detections in place of boxes (onnx)"
    )
    fuse_bn: bool = option(
        False, switch, "fold batch norms into convolutions, which every format does anyway", "--fuse-bn"
    )
    out: str | None = option(
        None,
        text,
        "the file; none: --weights with the format's end (_fused before Darknet's)",
        metavar="FILE",
    )
    batch_size: int = option(8, count(1), "pictures at once when measuring mAP")


def export(settings: ExportSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Writes the network in another format, after that format's program gave the same boxes.

    Returns:
        file, files, format, bytes (of all), max_abs_diff (pixels, on pictures of `valid` or of noise),
        compared (pictures), map50_float, map50_exported, sizes, batches, seconds; with int8 also
        kept_float and tried.

    Raises:
        DarkslimError: an input or a setting is wrong, a library is missing, or the boxes differ; nothing was
            written.
    """
    began = time.perf_counter()
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    paths = exported_paths(settings)
    check(settings)
    files.check_outputs({f"--out ({path.suffix})": path for path in paths}, settings.reads())
    devices.seed_everything(settings.seed)
    model = weights.load_model(settings.model_def, settings.weights)
    size, names = input_size(model.graph, settings.img_size), class_names(settings)
    with Scores(settings, model, observer, stop) as scores:
        before = scores.of(model)
        fused = fuse(model)
        prove_fused(model, fused, seed=settings.seed)
        stored = formats.halved(settings.format, fused) if settings.half else fused
        done, made = None, None
        if settings.int8:
            progress = watched(observer, stop, "stopped; nothing was written")
            done = quantized(
                fused, lambda net: onnx_model(net, size, names), settings, size, observer, progress
            )
            made = library("onnx").load_from_string(done.data)
        elif FORMATS[settings.format].onnx:
            made = onnx_model(fused, size, names, half=settings.half and settings.format == "onnx")
        found = formats.contents(settings.format, fused, made, size, names, settings.half)
        stop.check("stopped; nothing was written")
        network = formats.reopened(settings.format, found)
        differs, pictures = compare(stored, network, scores, size, exact=not settings.int8)
        after = scores.of(network)
        if settings.nms:
            found = {".onnx": suppressing(stored, scores, settings, size, names)}
    files.save_all([files.Save(path, found[path.suffix]) for path in paths])
    return {
        "file": paths[0],
        "files": paths,
        "format": settings.format,
        "bytes": sum(map(len, found.values())),
        "int8": settings.int8,
        "half": settings.half,
        "nms": settings.nms,
        "max_abs_diff": differs,
        "compared": pictures,
        "map50_float": before,
        "map50_exported": after,
        "img_size": size,
        "sizes": FORMATS[settings.format].sizes,
        "batches": FORMATS[settings.format].batches,
        **told(done),
        "seconds": time.perf_counter() - began,
    }


def told(done: Quantized | None) -> dict:
    """What is said of 8 bits."""
    if done is None:
        return {}
    tried = [{"kept_float": kept, "map50_calibration": reached} for kept, reached in done.tried]
    return {"kept_float": list(done.kept), "calibrated": done.pictures, "tried": tried}


def check(settings: ExportSettings) -> None:
    """Raises:
    RequestError: settings that the format has not got, or a library that is missing.
    """
    name = settings.format
    able = {
        "--int8": (settings.int8, [n for n, f in FORMATS.items() if f.onnx]),
        "--half": (settings.half, [n for n, f in FORMATS.items() if f.half]),
        "--nms": (settings.nms, ["onnx"]),
    }
    for flag, (wanted, formats_) in able.items():
        if wanted and name not in formats_:
            raise RequestError(flag, f"given with --format {name}", "--format " + " or ".join(formats_))
    if settings.int8 and (settings.half or settings.nms):
        raise RequestError("--int8", "given with --half or --nms", "one of them")
    if settings.int8 and settings.no_eval:
        raise RequestError("--int8", "given with --no_eval", "pictures, by which layers are judged")
    for needed in (*NEEDS[name], *(("onnxruntime",) if settings.int8 else ())):
        library(needed)


def exported_paths(settings: ExportSettings) -> list[Path]:
    """Where the files go, the one that is named first.

    Raises:
        RequestError: a name of another kind of file.
    """
    ends = FORMATS[settings.format].ends
    if settings.out:
        path = Path(settings.out)
    else:
        stem = Path(settings.weights).with_suffix("")
        added = "_fused" if settings.format == "darknet" else "_int8" if settings.int8 else ""
        path = stem.with_name(stem.name + added + ends[0])
    if path.suffix != ends[0]:
        raise RequestError("--out", str(path), f"a name that ends in {ends[0]}")
    return [path.with_suffix(end) for end in ends]


def class_names(settings: ExportSettings) -> list[str]:
    """The names of the data set, where there is one."""
    try:
        return datafile.read_data(settings.data_config).names
    except DarkslimError:
        if not settings.no_eval:
            raise
        return []


def compared_with(model: Darknet, scores: Scores, size) -> list[torch.Tensor]:
    """Pictures of noise, and the first ones of `valid`, (B, C, H, W) in 0..1."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(RANDOM, model.cfg.channels, *size, generator=generator)]
    if scores.loader is not None:
        images, _ = next(iter(scores.loader))
        batches.append(images.float() / 255)
    return batches


def compare(model: Darknet, network, scores: Scores, size, exact: bool = True) -> tuple[float, int]:
    """The largest difference of any number of the boxes, in pixels or shares, and on how many pictures.

    Args:
        exact: whether nothing but the order of additions may differ.

    Raises:
        ProofError: more than another program's rounding.
    """
    most, pictures = 0.0, 0
    for images in compared_with(model, scores, size):
        with torch.inference_mode():
            mine, its = model(images).numpy(), network(images).numpy()
        if mine.shape != its.shape:
            raise ProofError("the exported network", f"gives boxes {its.shape}", f"{mine.shape}")
        apart = np.where(mine == its, 0, np.abs(mine - its))  # infinite alike is alike
        if exact and not (apart <= ABSOLUTE + RELATIVE * np.abs(mine)).all():
            raise ProofError(
                "the exported network", f"differs by {float(np.nanmax(apart)):.3g}", "the boxes of PyTorch"
            )
        most, pictures = max(most, float(apart.max())), pictures + len(images)
    return most, pictures


def suppressing(model: Darknet, scores: Scores, settings: ExportSettings, size, names) -> bytes:
    """The ONNX file with suppression inside, whose detections are those that are found here.

    Raises:
        ProofError: they are others.
    """
    wanted = Suppression(settings.conf_thres, settings.nms_thres)
    data = onnx_model(model, size, names, half=settings.half, suppression=wanted).SerializeToString()
    session = library("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    for images in compared_with(model, scores, size):
        (rows,) = session.run([DETECTIONS], {INPUT: images.contiguous().numpy()})
        with torch.inference_mode():
            boxes = model(images)
        for i, mine in enumerate(evaluation.detections(boxes, wanted.conf_thres, wanted.nms_thres)):
            its = rows[rows[:, 0] == i][:, 1:]
            missed = unmatched(mine.numpy(), its) + unmatched(its, mine.numpy())
            if missed > 1 + 0.01 * len(mine):  # a score or an overlap may lie on its threshold
                raise ProofError(
                    "the exported network", f"{missed} of {len(mine)} detections differ", "those found here"
                )
    return data


def unmatched(rows: np.ndarray, others: np.ndarray) -> int:
    """How many of some detections (left, top, right, bottom, score, class) are not among others."""
    if not len(rows) or not len(others):
        return len(rows)
    scale = np.array([0.1, 0.1, 0.1, 0.1, 1e-3, 0.5]) + RELATIVE * np.abs(rows[:, None])
    near = (np.abs(rows[:, None] - others[None]) <= scale).all(2)
    return int((~near.any(1)).sum())
