"""Checkpoints, `.pth`: a dict of plain values and tensors with the state dict, the cfg's text and its hash.

Bare state dicts of the reference load by their key names. Always read with `weights_only=True`: nothing in a
file is executed.
"""

from __future__ import annotations

import argparse
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..base import files
from ..base.errors import CheckpointError, short
from . import foreign_keys
from .arrays import check_values, in_order, require_finite
from .cfg import parse_cfg
from .darknet import Darknet
from .graph import Graph

FORMAT = "darkslim"
# what other programs put beside weights, and what cannot do more than hold a value
PLAIN = [
    np._core.multiarray.scalar,
    np.dtype,
    argparse.Namespace,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
]


def checkpoint(model: Darknet, extra: dict | None = None, copy: bool = True) -> dict:
    """What a `.pth` of this program holds; `extra` may add plain values and tensors. Without `copy` its
    tensors are the model's, where these are on the CPU.
    """
    state = {k: v.detach().to("cpu") for k, v in model.state_dict().items()}
    state = {k: v.clone() for k, v in state.items()} if copy else state
    return {
        "format": FORMAT,
        "version": 1,
        "model": state,
        "cfg": model.cfg.text,
        "cfg_hash": model.cfg.hash,
        "seen": model.seen,
        "extra": extra or {},
    }


class _Sink:
    """A file that remembers why it could not be written to: torch.save makes a riddle of it."""

    def __init__(self, file):
        self.file, self.error = file, None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as e:
            self.error = e
            raise

    def flush(self) -> None:
        self.file.flush()


def write(data: dict, path) -> None:
    """`torch.save` to a new file, with errors of the disk as what they are.

    Raises:
        OSError: the disk is full, or failed.
    """
    with open(path, "wb") as file:
        sink = _Sink(file)
        try:
            torch.save(data, sink)
        except RuntimeError:
            if sink.error is None:
                raise
            raise sink.error from None


def save_checkpoint(
    path, model: Darknet, extra: dict | None = None, weights: tuple[Path, bytes] | None = None
) -> None:
    """Writes a `.pth` atomically and reads it back.

    Args:
        weights: another file that is written with it or not at all, with its content.

    Raises:
        CheckpointError: a weight is not finite.
    """
    require_finite(model, path, CheckpointError)
    data = checkpoint(model, extra)

    def check(temporary: Path) -> None:
        for key, value in read_checkpoint(temporary)["model"].items():
            if not torch.equal(value, data["model"][key]):
                raise CheckpointError(path, f"{key} came back from the disk changed")

    also = [] if weights is None else [files.Save(*weights)]
    files.save_all([files.Save(path, lambda temporary: write(data, temporary), check), *also])


def read_checkpoint(path) -> dict:
    """A `.pth` as a dict with at least `model`: a bare state dict is wrapped, a `module.` prefix is stripped.

    Raises:
        CheckpointError: it is damaged, executes code, holds something else than tensors, or is no checkpoint.
    """
    info = files.check_regular(path, "checkpoint", CheckpointError)
    head = files.read_head(path, "checkpoint", 512, CheckpointError)
    kind = files.sniff(head)
    if (
        info.st_size == 0
        or (kind and not kind.startswith(("a zip", "a Python pickle")))
        or not (kind or head[:1] == b"\x80")
    ):
        raise CheckpointError(
            path, f"is {kind or ('empty' if not info.st_size else 'no PyTorch checkpoint')}", "a .pth file"
        )
    if head.startswith(b"PK"):
        _check_archive(path, info.st_size)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN):
            warnings.simplefilter("ignore")  # what torch thinks of old formats
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises a dozen kinds for a broken file; each means that it cannot be read
        reason = str(e).split("\n")[0][:200]
        if "weights_only" in str(e) or "Unsupported" in str(e):
            raise CheckpointError(
                path,
                "holds Python objects, not only tensors; they could run code and are not loaded",
                "a state dict",
                "save model.state_dict() instead of the whole model, in the program that made it",
            ) from None
        raise CheckpointError(
            path,
            f"cannot be read ({type(e).__name__}: {reason})",
            "a PyTorch checkpoint",
            "it is truncated or damaged: copy it again",
        ) from None
    return _unwrap(data, path)


def _check_archive(path, size: int) -> None:
    """Refuses an archive that would unpack to more than it is, and one whose checksums do not hold: torch
    does not look at them, and a flipped bit is a weight like any other.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(item.file_size for item in archive.infolist())
            packed = any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist())
            damaged = None if packed or total > size else archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as e:
        raise CheckpointError(
            path, f"is a damaged archive ({e})", "a PyTorch checkpoint", "it is truncated: copy it again"
        ) from None
    if packed or total > size:
        raise CheckpointError(
            path,
            f"would unpack to {total:,} bytes from {size:,}",
            "PyTorch checkpoints are not compressed",
            "do not trust this file",
        )
    if damaged is not None:
        raise CheckpointError(
            path,
            f"is damaged: the checksum of {short(damaged)} does not hold",
            "a whole archive",
            "copy it again",
        )


def _unwrap(data, path) -> dict:
    if not isinstance(data, dict):
        raise CheckpointError(path, f"holds a {type(data).__name__}", "a dict of tensors")
    whole = dict(data)
    if not isinstance(data.get("model"), dict):
        inner = next(
            (data[k] for k in ("state_dict", "model_state_dict", "ema") if isinstance(data.get(k), dict)),
            data,
        )
        whole = {"model": inner, "extra": {}}
    state = {}
    stripped = 0
    for key, value in whole["model"].items():
        if not isinstance(key, str):
            raise CheckpointError(path, f"the key {short(repr(key))} is no text", "parameter names")
        while key.startswith("module."):
            key, stripped = key[len("module.") :], stripped + 1
        if not isinstance(value, Tensor):
            raise CheckpointError(path, f"{short(key)} is a {type(value).__name__}", "tensors only")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            kind = (
                "meta"
                if value.is_meta
                else f"{str(value.layout if value.layout != torch.strided else value.dtype)[6:]}"
            )
            raise CheckpointError(
                path,
                f"{short(key)} is a {kind} tensor",
                "a dense tensor of real numbers",
                "save it in float32",
            )
        state[key] = value
    if stripped:
        warnings.warn(
            f"{path}: the prefix `module.` of {stripped} keys was left out (saved from a parallel wrapper)",
            stacklevel=4,
        )
    return {**whole, "model": state}


def load_checkpoint(path, model: Darknet, cutoff: int | None = None) -> dict:
    """Loads a `.pth` into a network, strictly: every key, every shape.

    Args:
        cutoff: load only the layers before this one.

    Returns:
        The checkpoint's dict without its state: `extra`, `seen`, `cfg`, ... as far as they are there.

    Raises:
        CheckpointError: naming missing, unexpected or misshapen entries.
    """
    data = read_checkpoint(path)
    own = model.state_dict()
    state, said = foreign_keys.ours(data.pop("model"), own)
    if said:
        warnings.warn(f"{path}: {said}", stacklevel=3)
    if cutoff is not None:
        keep = {k for k in own if int(k.split(".")[1]) < cutoff}
        state, own = {k: v for k, v in state.items() if k in keep}, {k: own[k] for k in keep}
    _compare_keys(path, model, state, own, data.get("cfg"))
    _compare_cfgs(path, model, data.get("cfg"))
    model.load_state_dict({**model.state_dict(), **{k: v.to(own[k].dtype) for k, v in state.items()}})
    for layer, name, tensor in in_order(model):
        check_values(
            path, [(layer, name, tensor)], tensor.detach().cpu().reshape(-1).float().numpy(), CheckpointError
        )
        if name == "variance":
            tensor.clamp_(min=0)
    model.trained_at = _trained_at(data)
    seen = data.get("seen", 0)
    model.seen = seen if isinstance(seen, int) else 0
    return data


def _trained_at(data: dict) -> tuple[int, int] | None:
    """(height, width) of the input that a checkpoint of ours was trained at."""
    extra = data.get("extra")
    identity = extra.get("identity") if isinstance(extra, dict) else None
    size = identity.get("img_size") if isinstance(identity, dict) else None
    whole = isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(v, int) for v in size)
    return tuple(size) if whole else None


def _compare_keys(path, model: Darknet, state: dict, own: dict, text) -> None:
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    wrong = [k for k in own if k in state and state[k].shape != own[k].shape]
    made = ""
    if isinstance(text, str) and text != model.cfg.text:
        made = "; it was made with another cfg"
    for keys, what in ((missing, "is missing"), (extra, "is not in the network")):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise CheckpointError(
                path,
                f"{short(keys[0], 80)} {what}{more}",
                f"the parameters of {model.cfg.path}",
                "use the cfg that the checkpoint was made with" + made,
            )
    if wrong:
        k = wrong[0]
        raise CheckpointError(
            path,
            f"{k} is {tuple(state[k].shape)}",
            f"{tuple(own[k].shape)} in {model.cfg.path}",
            f"{len(wrong)} tensors differ: a pruned network needs the pruned cfg that was written with "
            f"it{made}",
        )


def _compare_cfgs(path, model: Darknet, text) -> None:
    """Warns where the same shapes would compute something else: other anchors, activations, routes."""
    if not isinstance(text, str) or text == model.cfg.text:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nodes = Graph(parse_cfg(text, f"{path} (cfg inside)")).nodes
        except Exception as e:  # the text inside is only a second opinion
            nodes, reason = None, e
    if nodes is None:
        warnings.warn(f"{path}: the cfg stored inside cannot be read ({reason})", stacklevel=3)
        return
    ours = (
        "anchors",
        "mask",
        "activation",
        "size",
        "stride_x",
        "padding",
        "groups",
        "scale_x_y",
        "new_coords",
    )
    for a, b in zip(nodes, model.graph.nodes, strict=False):
        differ = [k for k in ours if a.opts.get(k) != b.opts.get(k)]
        if a.type != b.type or a.inputs != b.inputs or differ:
            what = (
                f"{differ[0]} is {a.opts.get(differ[0])} there"
                if differ
                else f"[{a.type}] reads {a.inputs} there"
            )
            warnings.warn(
                f"{b.section.place}: the checkpoint {path} was made with another cfg: {what}", stacklevel=3
            )
            return
