"""Packing as jobs: a network into one small file, the file into a network again, and what a file holds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ..base import devices, files
from ..base.errors import CheckpointError, ProofError, RequestError, WeightsError
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..compression import accounting, packing
from ..compression.compensate import onto_shared
from ..compression.tied import Tied
from ..network import weights
from ..network.arrays import in_order
from ..network.checkpoints import checkpoint, read_checkpoint, write
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..network.packed import KINDS, Packed, Shared, load_packed, same_bits
from ..network.twins import empty, twin
from ..network.weights import weights_size, write_weights
from ..pruning.fuse import fuse, prove_fused
from ..report.packed_bytes import bytes_figure
from .compress_settings import PackedSettings, PackSettings
from .constrained import trained
from .job_pages import pack_page
from .measured_page import check_report
from .resolving import batches_of, resolved
from .score import Scores

ENDS = (".packed", ".cfg", ".pth", ".weights")  # of names; anything else behind a point belongs to them


def pack(settings: PackSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Packs a network: kernels become shared values, codes are written by their entropy, and the file is read
    back and compared before it has its name.

    Returns:
        file, bytes_before (of the .weights file), bytes_after, stages, entropy (least bytes), layers, zeros
        (share of the kernels' weights), map50_before, map50_shared (of the shared values, before
        they are chosen again or trained), map50_after, bits, coder, history, reconstruction, seconds.

    Raises:
        DarkslimError: an input or a setting is wrong, or the file does not give back what was packed; nothing
            was written.
    """
    began = time.perf_counter()
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    out = packed_path(settings)
    if settings.epochs and settings.fuse_bn:
        raise RequestError("--fuse-bn", "given with --epochs", "one of them", "norms are needed to train")
    if settings.epochs and settings.reconstruct:
        raise RequestError(
            "--reconstruct", "given with --epochs", "one of them", "training moves all values as well"
        )
    outputs = {"--out": out, "--figure": settings.figure}
    if settings.epochs:
        outputs["--out (_shared.pth)"] = shared_path(out)
    files.check_outputs(outputs, settings.reads())
    check_report(settings)
    devices.seed_everything(settings.seed)
    model = weights.load_model(settings.model_def, settings.weights)
    input_size(model.graph, settings.img_size)
    progress = watched(observer, stop, "stopped; nothing was written")
    with Scores(settings, model, observer, stop) as scores:
        before = scores.of(model)
        if settings.fuse_bn:
            fused = fuse(model)
            prove_fused(model, fused, seed=settings.seed)
            model = fused
        dense = twin(model) if settings.reconstruct else None
        shared = packing.share_all(model, settings.bits, lambda rows: progress(rows, desc="sharing values"))
        plain = scores.of(model) if settings.epochs or settings.reconstruct else None
        history, fits = [], []
        if dense is not None:
            batches = batches_of(settings, dense, progress)
            fits = resolved(settings, dense, model, batches, progress, onto_shared(dense, shared))
            shared = packing.share_all(model, settings.bits)  # the same values, or fewer
        if settings.epochs:
            model, shared, history = tied_training(settings, out, observer, stop)
        made = packing.pack(model, shared, settings.coder)
        after = scores.of(model)
    saves = [files.Save(out, made.data, lambda temporary: prove(model, temporary))]
    if settings.figure:
        saves.append(files.Save(settings.figure, bytes_figure(made.layers, f"{Path(settings.weights).name}")))
    files.save_all(saves)
    result = {
        "file": out,
        "bytes_before": made.stages[0]["bytes"],
        "bytes_after": len(made.data),
        "stages": made.stages,
        "entropy": made.entropy,
        "layers": [vars(row) for row in made.layers],
        "zeros": zeros(made.layers),
        "map50_before": before,
        "map50_shared": plain,
        "map50_after": after,
        "epochs": settings.epochs,
        "history": history,
        "reconstruction": [vars(fit) for fit in fits],
        "bits": settings.bits,
        "coder": settings.coder,
        "fused": settings.fuse_bn,
        "figure": settings.figure,
        "model_def": settings.model_def,
    }
    if settings.report is not None:
        figure = bytes_figure(made.layers, f"{Path(settings.weights).name}")
        result["report"] = pack_page(settings, result, figure, observer, stop)
    return {**result, "seconds": time.perf_counter() - began}


def tied_training(settings: PackSettings, out: Path, observer: Observer, stop: StopFlag):
    """Trains the shared values; (network, its kernels as shared values, history)."""
    made: list[Tied] = []

    def constrain(model: Darknet) -> list[Tied]:
        made.append(Tied(model, packing.share_all(model, settings.bits)))
        return made

    model, history = trained(settings, settings.epochs, shared_path(out), constrain, observer, stop)
    made[0].finish(model)
    return model, made[0].shared(model), history


def shared_path(out: Path) -> Path:
    """Where a training of shared values keeps its weights."""
    return out.with_name(f"{out.stem}_shared.pth")


def packed_path(settings: PackSettings) -> Path:
    """Where the packed file goes.

    Raises:
        RequestError: a name that other kinds of files have.
    """
    path = Path(settings.out) if settings.out else Path(settings.weights).with_suffix(".packed")
    if path.suffix in (".weights", ".pth", ".cfg", ".data", ".json", ".png"):
        raise RequestError("--out", f"{path} is a name of another kind of file", "x.packed")
    return path


def prove(model: Darknet, path: Path) -> None:
    """What lies on the disk gives back every number of the network, bit for bit.

    Raises:
        ProofError: it does not.
    """
    for (layer, name, tensor), (_, found) in zip(in_order(model), Packed(path).arrays(), strict=True):
        mine = tensor.detach().cpu().float().numpy().reshape(-1)
        if not same_bits(found.weights() if isinstance(found, Shared) else found, mine):
            raise ProofError(path, f"layer {layer}: {name} came back from the disk changed")


def zeros(layers) -> float:
    """The share of the kernels' weights that is 0."""
    return 1 - sum(row.kept for row in layers) / max(1, sum(row.count for row in layers))


def unpack(settings: PackedSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """A packed network as .cfg, .pth and .weights, equal bit for bit to what was packed.

    Returns:
        cfg, checkpoint, weights (paths), bytes_before, bytes_after, seconds.

    Raises:
        DarkslimError: the file is damaged; nothing was written.
    """
    began = time.perf_counter()
    packed = Packed(settings.file)
    stem = Path(settings.out or settings.file)
    stem = stem.with_suffix("") if stem.suffix in ENDS else stem
    cfg, checkpoint_path, weights_path = (
        stem.with_name(stem.name + end) for end in (".cfg", ".pth", ".weights")
    )
    outputs = {"--out (.cfg)": cfg, "--out (.pth)": checkpoint_path, "--out (.weights)": weights_path}
    files.check_outputs(outputs, settings.reads())
    model = empty(packed.cfg)
    for norm in model.batch_norms().values():
        norm.num_batches_tracked.zero_()
    load_packed(model, settings.file)
    state = checkpoint(model, {"unpacked_from": str(settings.file)}, copy=False)

    def check(temporary: dict[Path, Path]) -> None:
        for layer, name, same in compared(model, temporary[weights_path]):
            if not same:
                raise WeightsError(weights_path, f"layer {layer}: {name} came back from the disk changed")
        for key, tensor in read_checkpoint(temporary[checkpoint_path])["model"].items():
            if not tensor.equal(state["model"][key]):
                raise CheckpointError(checkpoint_path, f"{key} came back from the disk changed")

    saves = [
        files.Save(cfg, packed.cfg.text),
        files.Save(checkpoint_path, lambda temporary: write(state, temporary)),
        files.Save(weights_path, lambda temporary: write_weights(model, temporary, packed.seen)),
    ]
    told = files.save_all(saves, check, keep_old=True)
    for sentence in told:
        (observer or Observer()).say(sentence)
    return {
        "cfg": cfg,
        "checkpoint": checkpoint_path,
        "weights": weights_path,
        "bytes_before": packed.size,
        "bytes_after": weights_size(model),
        "seconds": time.perf_counter() - began,
    }


def compared(model: Darknet, path: Path):
    """(layer, name, whether it is the same bit for bit) of every tensor of a .weights file."""
    with open(path, "rb") as file:
        file.seek(20)
        for layer, name, tensor in in_order(model):
            floats = np.fromfile(file, "<f4", tensor.numel())
            mine = tensor.detach().cpu().float().numpy().reshape(-1)
            yield layer, name, len(floats) == len(mine) and same_bits(floats, mine)


def info(settings: PackedSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """What a packed file holds; every checksum is looked at.

    Returns:
        file, bytes_before, bytes_after, stages, entropy, layers, zeros, cfg_bytes, tensors (layer, name,
        kind, coder, ...), input (height, width), classes.

    Raises:
        DarkslimError: the file is damaged.
    """
    packed = Packed(settings.file)
    layers, others, whole = [], 0, 20
    for stored, found in packed.arrays():
        whole += 4 * stored.count
        if stored.name == "kernels":
            shared = found if isinstance(found, Shared) else None
            layers.append(accounting.account(stored, shared, found.weights() if shared else found))
        else:
            others += stored.size
    model = empty(packed.cfg, "meta")
    rest = packed.size - sum(row.coded for row in layers)
    return {
        "file": settings.file,
        "bytes_before": whole,
        "bytes_after": packed.size,
        "stages": accounting.stages(layers, others, whole, packed.size),
        "entropy": rest + sum(row.entropy for row in layers),
        "layers": [vars(row) for row in layers],
        "zeros": zeros(layers),
        "cfg_bytes": packed.text_bytes,
        "tensors": [{**vars(s), "kind": KINDS[s.kind]} for s in packed.stored],
        "input": [packed.cfg.height, packed.cfg.width],
        "classes": model.heads[0].classes if model.heads else None,
    }
