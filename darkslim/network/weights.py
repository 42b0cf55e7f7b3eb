"""Darknet's `.weights` files, every byte accounted for, and `load_weights`, which takes a `.pth` as well.

int32 major, minor, revision; `seen` (int64 if major * 10 + minor >= 2, else int32); then for each
convolution bias, [scale, mean, variance], kernels, and for a weighted shortcut its weights, all float32.
A file that is not exactly as long as the cfg asks is an error. Written: version 0.2.5.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..base import files
from ..base.errors import WeightsError
from .arrays import TINY, check_values, in_order, require_finite
from .cfg import Cfg, read_cfg
from .checkpoints import load_checkpoint
from .darknet import Darknet
from .packed import MAGIC, is_packed, load_packed

VERSION = (0, 2, 5)


@dataclass(frozen=True)
class Header:
    """The head of a .weights file; `size` in bytes."""

    version: tuple[int, int, int]
    seen: int
    size: int


def layer_ends(model: Darknet) -> dict[int, int]:
    """Layer number -> floats of the file up to and including that layer, for the layers that have any."""
    ends, total = {}, 0
    for layer, _, tensor in in_order(model):
        total += tensor.numel()
        ends[layer] = total
    return ends


def read_header(path) -> Header:
    """The header of a .weights file.

    Raises:
        WeightsError: it is no regular file, too short, of an absurd version, or of another kind.
    """
    info = files.check_regular(path, "weights file", WeightsError)
    head = files.read_head(path, "weights file", 512, WeightsError)
    kind = files.sniff(head)
    if kind:
        raise WeightsError(
            path,
            f"is {kind}",
            "a Darknet .weights file",
            "load it under its own name" if ".pth" in kind else "",
        )
    if info.st_size < 16:
        raise WeightsError(
            path,
            f"is {info.st_size} bytes long",
            "a header of 16 or 20 bytes and the weights",
            "copy it again",
        )
    major, minor, revision = struct.unpack("<3i", head[:12])
    if not (0 <= major < 1000 and 0 <= minor < 1000 and revision >= 0):
        raise WeightsError(
            path,
            f"opens with version {major}.{minor}.{revision}",
            "0.1.0 to 0.2.5",
            "it is no Darknet .weights file",
        )
    wide = major * 10 + minor >= 2
    if wide and info.st_size < 20:
        raise WeightsError(
            path, f"is {info.st_size} bytes long", "a header of 20 bytes and the weights", "copy it again"
        )
    seen = struct.unpack("<q", head[12:20])[0] if wide else struct.unpack("<i", head[12:16])[0]
    return Header((major, minor, revision), seen, 20 if wide else 16)


def load_weights(model: Darknet, path, cutoff: int | None = None) -> None:
    """Fills a network from a file: a `.weights` of exactly the right length, a `.pth`, or a packed network
    (told apart by content).

    Args:
        cutoff: load only the layers before this one, from a file that holds at least them (a backbone file:
            `darknet53.conv.74` is cutoff 74).

    Raises:
        WeightsError, CheckpointError: with the length that it has and should have, or the layer at fault.
    """
    head = files.read_head(path, "weights file", len(MAGIC), WeightsError)
    if is_packed(head):
        if cutoff is not None:
            raise WeightsError(path, "is a packed network", "a .weights or .pth file", "unpack it first")
        load_packed(model, path)
        return
    if head.startswith(b"PK") or head[:1] == b"\x80":
        load_checkpoint(path, model, cutoff)
        return
    header, floats = _read_floats(model, path, cutoff)
    arrays = in_order(model, cutoff)
    check_values(path, arrays, floats)
    at = 0
    with torch.no_grad():
        for _, name, tensor in arrays:
            tensor.copy_(torch.from_numpy(floats[at : at + tensor.numel()]).view(tensor.shape))
            if name == "variance":
                tensor.clamp_(min=0)  # a published detector has -7e-44 there
            at += tensor.numel()
    model.seen = header.seen if cutoff is None else 0


def _read_floats(model: Darknet, path, cutoff: int | None) -> tuple[Header, np.ndarray]:
    header = read_header(path)
    wanted = sum(t.numel() for _, _, t in in_order(model, cutoff))
    body = os.stat(path).st_size - header.size
    if body == 4 * wanted + 4 and header.version == (0, 0, 0) and cutoff is None:
        # Some tools write a header of zeros and a 64-bit `seen`, so that Darknet reads every weight one float
        # too early.
        warnings.warn(
            f"{path}: the header says version 0.0.0 but `seen` has 64 bits; it is read so here, Darknet "
            "would misread it; "
            "save it again",
            stacklevel=3,
        )
        header, body = Header(header.version, header.seen, 20), body - 4
    if body != 4 * wanted and (cutoff is None or body < 4 * wanted):
        raise WeightsError(path, *_wrong_length(model, path, header, body, wanted, cutoff))
    with open(path, "rb") as f:
        f.seek(header.size)
        floats = np.fromfile(f, dtype="<f4", count=wanted)
    if floats.size != wanted:
        raise WeightsError(path, "became shorter while it was read")
    return header, floats.astype(np.float32, copy=False)


def _wrong_length(
    model: Darknet, path, header: Header, body: int, wanted: int, cutoff: int | None
) -> tuple[str, str, str]:
    found = f"is {body + header.size:,} bytes long"
    expected = f"{4 * wanted + header.size:,} bytes for {model.cfg.path}" + (
        f" up to layer {cutoff}" if cutoff is not None else ""
    )
    ends = layer_ends(model)
    if body > 4 * wanted:
        suspect = _first_absurd_layer(model, path, header)
        where = f"; the values stop making sense in layer {suspect}" if suspect is not None else ""
        return (
            found,
            expected,
            f"{body - 4 * wanted:,} bytes are left over{where}: use the cfg that the weights were made with",
        )
    exact = [layer for layer, end in ends.items() if 4 * end == body]
    if exact and cutoff is None:
        return (
            found,
            expected,
            f"the data ends exactly behind layer {exact[-1]}: a backbone file loads with "
            f"cutoff={exact[-1] + 1} "
            "(train.py -pre takes it as it is)",
        )
    inside = next((layer for layer, end in ends.items() if 4 * end > body), None)
    suspect = _first_absurd_layer(model, path, header)
    remedy = f"the data ends in layer {inside}"
    if suspect is not None:
        remedy += f" and stops making sense in layer {suspect}: use the cfg that the weights were made with"
    return (
        found,
        expected,
        remedy + ("" if suspect is not None else "; the file is truncated or belongs to another cfg"),
    )


def _first_absurd_layer(model: Darknet, path, header: Header) -> int | None:
    """The first layer whose variances, read by this cfg, are negative or not finite: where another cfg parts
    from it.
    """
    arrays = in_order(model)
    floats = np.fromfile(
        path, dtype="<f4", offset=header.size, count=sum(t.numel() for _, _, t in arrays)
    )  # not what lies behind
    at = 0
    for layer, name, tensor in arrays:
        part = floats[at : at + tensor.numel()]
        if part.size < tensor.numel():
            return None
        if not np.isfinite(part).all() or (name == "variance" and (part < -TINY).any()):
            return layer
        at += tensor.numel()
    return None


def matching_cutoff(model: Darknet, path) -> int | None:
    """The cutoff at which a shorter `.weights` file (a backbone) ends exactly behind a layer; None if it does
    not.
    """
    header = read_header(path)
    body = os.stat(path).st_size - header.size
    exact = [layer for layer, end in layer_ends(model).items() if 4 * end == body]
    whole = len(model.graph.nodes)
    return exact[-1] + 1 if exact and exact[-1] < max(layer_ends(model)) else whole if exact else None


def _parts(model: Darknet, seen: int) -> Iterator[bytes]:
    """The content of a `.weights` file, piece by piece: version 0.2.5, a 64-bit `seen`, the arrays."""
    yield struct.pack("<3iq", *VERSION, seen)
    for _, _, tensor in in_order(model):
        yield (
            tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).tobytes()
        )


def weights_bytes(model: Darknet, seen: int = 0) -> bytes:
    """The content of a `.weights` file."""
    return b"".join(_parts(model, seen))


def write_weights(model: Darknet, path, seen: int = 0) -> None:
    """The same into a new file, without a copy of all of it."""
    with open(path, "wb") as file:
        file.writelines(_parts(model, seen))


def weights_size(model: Darknet) -> int:
    """Bytes of its `.weights` file."""
    return struct.calcsize("<3iq") + 4 * sum(tensor.numel() for _, _, tensor in in_order(model))


def save_weights(model: Darknet, path, seen: int = 0) -> None:
    """Writes a `.weights` file atomically, after checking that every value is finite.

    Args:
        seen: images trained on; a network that is to be finetuned must start with 0, or Darknet believes that
            its training is over.

    Raises:
        WeightsError: a value is not finite.
    """
    require_finite(model, path, WeightsError)
    data = weights_bytes(model, seen)

    def check(temporary: Path) -> None:
        if temporary.read_bytes() != data:
            raise WeightsError(path, "came back from the disk changed")

    files.save(path, data, check)


def load_model(cfg: Cfg | str, weights=None) -> Darknet:
    """A network in eval mode.

    Args:
        cfg: path of a cfg, or a parsed one.
        weights: `.weights` or `.pth` (told apart by content); None: random.
    """
    model = Darknet(cfg if isinstance(cfg, Cfg) else read_cfg(cfg))
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def model_bytes(model: Darknet) -> int:
    """Size of the network's `.weights` file in bytes."""
    return 20 + 4 * sum(t.numel() for _, _, t in in_order(model))
