"""Weights on disk: Darknet's `.weights` and PyTorch's `.pth`, every byte accounted for.

.weights: int32 major, minor, revision; `seen` (int64 if major * 10 + minor >= 2, else int32); then for each
convolution bias, [scale, mean, variance], kernels, and for a weighted shortcut its weights, all float32.
A file that is not exactly as long as the cfg asks is an error. Written: version 0.2.5.

.pth: a dict of plain values and tensors with the state dict, the cfg's text and its hash; bare state dicts of
the reference load by their key names. Always read with `weights_only=True`: nothing in a file is executed.
"""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import files
from .cfg import Cfg, read_cfg
from .darknet import Darknet
from .errors import CheckpointError, WeightsError
from .graph import node_parameters

VERSION = (0, 2, 5)
FORMAT = "darkslim"


@dataclass(frozen=True)
class Header:
    """The head of a .weights file; `size` in bytes."""

    version: tuple[int, int, int]
    seen: int
    size: int


# --- .weights --------------------------------------------------------------------------------------------------------


def _arrays(model: Darknet, upto: int | None = None) -> list[tuple[int, str, Tensor]]:
    """(layer, name, tensor) in the order of the file, for the layers before `upto`."""
    found = []
    for node in model.graph.nodes[:upto]:
        module = model.module_list[node.index]
        if node.type == "convolutional":
            conv = getattr(module, f"conv_{node.index}")
            if node.opts["batch_normalize"]:
                bn = getattr(module, f"batch_norm_{node.index}")
                named = {"beta": bn.bias, "gamma": bn.weight, "mean": bn.running_mean, "variance": bn.running_var}
            else:
                named = {"bias": conv.bias}
            found += [(node.index, name, t) for name, t in {**named, "kernels": conv.weight}.items()]
        elif isinstance(getattr(module, "weights", None), nn.Parameter):
            found.append((node.index, "weights", module.weights))
    return found


def layer_ends(model: Darknet) -> dict[int, int]:
    """Layer number -> floats of the file up to and including that layer, for the layers that have any."""
    ends, total = {}, 0
    for layer, _, tensor in _arrays(model):
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
        raise WeightsError(path, f"is {kind}", "a Darknet .weights file", "load it under its own name" if ".pth" in kind else "")
    if info.st_size < 16:
        raise WeightsError(path, f"is {info.st_size} bytes long", "a header of 16 or 20 bytes and the weights", "copy it again")
    major, minor, revision = struct.unpack("<3i", head[:12])
    if not (0 <= major < 1000 and 0 <= minor < 1000 and revision >= 0):
        raise WeightsError(path, f"opens with version {major}.{minor}.{revision}", "0.1.0 to 0.2.5", "it is no Darknet .weights file")
    wide = major * 10 + minor >= 2
    if wide and info.st_size < 20:
        raise WeightsError(path, f"is {info.st_size} bytes long", "a header of 20 bytes and the weights", "copy it again")
    seen = struct.unpack("<q", head[12:20])[0] if wide else struct.unpack("<i", head[12:16])[0]
    return Header((major, minor, revision), seen, 20 if wide else 16)


def load_weights(model: Darknet, path, cutoff: int | None = None) -> None:
    """Fills a network from a file: a `.weights` of exactly the right length, or a `.pth` (told apart by content).

    Args:
        cutoff: load only the layers before this one, from a file that holds at least them (a backbone file:
            `darknet53.conv.74` is cutoff 74).

    Raises:
        WeightsError, CheckpointError: with the length that it has and should have, or the layer at fault.
    """
    head = files.read_head(path, "weights file", 4, WeightsError)
    if head.startswith(b"PK") or head[:1] == b"\x80":
        load_checkpoint(path, model, cutoff)
        return
    header, floats = _read_floats(model, path, cutoff)
    arrays = _arrays(model, cutoff)
    _check_values(path, arrays, floats)
    at = 0
    with torch.no_grad():
        for _, _, tensor in arrays:
            tensor.copy_(torch.from_numpy(floats[at : at + tensor.numel()]).view(tensor.shape))
            at += tensor.numel()
    model.seen = header.seen if cutoff is None else 0


def _read_floats(model: Darknet, path, cutoff: int | None) -> tuple[Header, np.ndarray]:
    header = read_header(path)
    wanted = sum(t.numel() for _, _, t in _arrays(model, cutoff))
    body = os.stat(path).st_size - header.size
    if body == 4 * wanted + 4 and header.version == (0, 0, 0) and cutoff is None:
        # Some tools write a header of zeros and a 64-bit `seen`, so that Darknet reads every weight one float too early.
        warnings.warn(f"{path}: the header says version 0.0.0 but `seen` has 64 bits; it is read so here, Darknet would misread it; "
                      "save it again", stacklevel=3)
        header, body = Header(header.version, header.seen, 20), body - 4
    if body != 4 * wanted and (cutoff is None or body < 4 * wanted):
        raise WeightsError(path, *_wrong_length(model, path, header, body, wanted, cutoff))
    with open(path, "rb") as f:
        f.seek(header.size)
        floats = np.fromfile(f, dtype="<f4", count=wanted)
    if floats.size != wanted:
        raise WeightsError(path, "became shorter while it was read")
    return header, floats.astype(np.float32, copy=False)


def _wrong_length(model: Darknet, path, header: Header, body: int, wanted: int, cutoff: int | None) -> tuple[str, str, str]:
    found = f"is {body + header.size:,} bytes long"
    expected = f"{4 * wanted + header.size:,} bytes for {model.cfg.path}" + (f" up to layer {cutoff}" if cutoff is not None else "")
    ends = layer_ends(model)
    if body > 4 * wanted:
        suspect = _first_absurd_layer(model, path, header)
        where = f"; the values stop making sense in layer {suspect}" if suspect is not None else ""
        return found, expected, f"{body - 4 * wanted:,} bytes are left over{where}: use the cfg that the weights were made with"
    exact = [layer for layer, end in ends.items() if 4 * end == body]
    if exact and cutoff is None:
        return found, expected, f"the data ends exactly behind layer {exact[-1]}: a backbone file loads with cutoff={exact[-1] + 1} "\
                                "(train.py -pre takes it as it is)"
    inside = next((layer for layer, end in ends.items() if 4 * end > body), None)
    suspect = _first_absurd_layer(model, path, header)
    remedy = f"the data ends in layer {inside}"
    if suspect is not None:
        remedy += f" and stops making sense in layer {suspect}: use the cfg that the weights were made with"
    return found, expected, remedy + ("" if suspect is not None else "; the file is truncated or belongs to another cfg")


def _first_absurd_layer(model: Darknet, path, header: Header) -> int | None:
    """The first layer whose variances, read by this cfg, are negative or not finite: where another cfg parts from it."""
    arrays = _arrays(model)
    floats = np.fromfile(path, dtype="<f4", offset=header.size, count=sum(t.numel() for _, _, t in arrays))  # not what lies behind
    at = 0
    for layer, name, tensor in arrays:
        part = floats[at : at + tensor.numel()]
        if part.size < tensor.numel():
            return None
        if not np.isfinite(part).all() or (name == "variance" and (part < 0).any()):
            return layer
        at += tensor.numel()
    return None


def _check_values(path, arrays, floats: np.ndarray, error=WeightsError) -> None:
    at = 0
    for layer, name, tensor in arrays:
        part = floats[at : at + tensor.numel()]
        at += tensor.numel()
        if not np.isfinite(part).all():
            bad = int((~np.isfinite(part)).sum())
            raise error(path, f"layer {layer}: {bad} of {part.size} values of {name} are not finite", "finite weights",
                        "use a checkpoint from before the training diverged")
        if name == "variance" and (part < 0).any():
            raise error(path, f"layer {layer}: a running variance is {part.min():g}", "variances of at least 0",
                        "the file belongs to another cfg, or is damaged")


def matching_cutoff(model: Darknet, path) -> int | None:
    """The cutoff at which a shorter `.weights` file (a backbone) ends exactly behind a layer; None if it does not."""
    header = read_header(path)
    body = os.stat(path).st_size - header.size
    exact = [layer for layer, end in layer_ends(model).items() if 4 * end == body]
    whole = len(model.graph.nodes)
    return exact[-1] + 1 if exact and exact[-1] < max(layer_ends(model)) else whole if exact else None


def weights_bytes(model: Darknet, seen: int = 0) -> bytes:
    """The content of a `.weights` file: version 0.2.5, a 64-bit `seen`, the arrays."""
    parts = [t.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes() for _, _, t in _arrays(model)]
    return struct.pack("<3iq", *VERSION, seen) + b"".join(parts)


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


def require_finite(model: Darknet, path, error=WeightsError) -> None:
    """Raises `error` naming the first layer with a value that is not finite."""
    for layer, name, tensor in _arrays(model):
        if not torch.isfinite(tensor).all():
            raise error(path, f"layer {layer}: {name} holds values that are not finite", "finite weights", "nothing was written")


# --- .pth ------------------------------------------------------------------------------------------------------------


def checkpoint(model: Darknet, extra: dict | None = None) -> dict:
    """What a `.pth` of this program holds; `extra` may add plain values and tensors."""
    state = {k: v.detach().to("cpu").clone() for k, v in model.state_dict().items()}
    return {"format": FORMAT, "version": 1, "model": state, "cfg": model.cfg.text, "cfg_hash": model.cfg.hash, "seen": model.seen,
            "extra": extra or {}}


def save_checkpoint(path, model: Darknet, extra: dict | None = None) -> None:
    """Writes a `.pth` atomically and reads it back.

    Raises:
        CheckpointError: a weight is not finite.
    """
    require_finite(model, path, CheckpointError)
    data = checkpoint(model, extra)

    def check(temporary: Path) -> None:
        for key, value in read_checkpoint(temporary)["model"].items():
            if not torch.equal(value, data["model"][key]):
                raise CheckpointError(path, f"{key} came back from the disk changed")

    files.save(path, lambda temporary: torch.save(data, temporary), check)


def read_checkpoint(path) -> dict:
    """A `.pth` as a dict with at least `model`: a bare state dict is wrapped, a `module.` prefix is stripped.

    Raises:
        CheckpointError: it is damaged, executes code, holds something else than tensors, or is no checkpoint.
    """
    info = files.check_regular(path, "checkpoint", CheckpointError)
    head = files.read_head(path, "checkpoint", 512, CheckpointError)
    kind = files.sniff(head)
    if info.st_size == 0 or (kind and not kind.startswith(("a zip", "a Python pickle"))) or not (kind or head[:1] == b"\x80"):
        raise CheckpointError(path, f"is {kind or ('empty' if not info.st_size else 'no PyTorch checkpoint')}", "a .pth file")
    if head.startswith(b"PK"):
        _refuse_zip_bomb(path, info.st_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of old formats
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises a dozen kinds for a broken file; each means that it cannot be read
        reason = str(e).split("\n")[0][:200]
        if "weights_only" in str(e) or "Unsupported" in str(e):
            raise CheckpointError(path, "holds Python objects, not only tensors; they could run code and are not loaded",
                                  "a state dict", "save model.state_dict() instead of the whole model") from None
        raise CheckpointError(path, f"cannot be read ({type(e).__name__}: {reason})", "a PyTorch checkpoint",
                              "it is truncated or damaged: copy it again") from None
    return _unwrap(data, path)


def _refuse_zip_bomb(path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(item.file_size for item in archive.infolist())
            packed = any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as e:
        raise CheckpointError(path, f"is a damaged archive ({e})", "a PyTorch checkpoint", "it is truncated: copy it again") from None
    if packed or total > size:
        raise CheckpointError(path, f"would unpack to {total:,} bytes from {size:,}", "PyTorch checkpoints are not compressed",
                              "do not trust this file")


def _unwrap(data, path) -> dict:
    if not isinstance(data, dict):
        raise CheckpointError(path, f"holds a {type(data).__name__}", "a dict of tensors")
    whole = dict(data)
    if not isinstance(data.get("model"), dict):
        inner = next((data[k] for k in ("state_dict", "model_state_dict", "ema") if isinstance(data.get(k), dict)), data)
        whole = {"model": inner, "extra": {}}
    state = {}
    stripped = 0
    for key, value in whole["model"].items():
        if not isinstance(key, str):
            raise CheckpointError(path, f"the key {key!r} is no text", "parameter names")
        while key.startswith("module."):
            key, stripped = key[len("module.") :], stripped + 1
        if not isinstance(value, Tensor):
            raise CheckpointError(path, f"{key} is a {type(value).__name__}", "tensors only")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            kind = "meta" if value.is_meta else f"{str(value.layout if value.layout != torch.strided else value.dtype)[6:]}"
            raise CheckpointError(path, f"{key} is a {kind} tensor", "a dense tensor of real numbers", "save it in float32")
        state[key] = value
    if stripped:
        warnings.warn(f"{path}: the prefix `module.` of {stripped} keys was left out (saved from a parallel wrapper)", stacklevel=4)
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
    state, own = data.pop("model"), model.state_dict()
    if cutoff is not None:
        keep = {k for k in own if int(k.split(".")[1]) < cutoff}
        state, own = {k: v for k, v in state.items() if k in keep}, {k: own[k] for k in keep}
    _compare_keys(path, model, state, own, data.get("cfg"))
    _compare_cfgs(path, model, data.get("cfg"))
    model.load_state_dict({**model.state_dict(), **{k: v.to(own[k].dtype) for k, v in state.items()}})
    for layer, name, tensor in _arrays(model):
        _check_values(path, [(layer, name, tensor)], tensor.detach().cpu().reshape(-1).float().numpy(), CheckpointError)
    seen = data.get("seen", 0)
    model.seen = seen if isinstance(seen, int) else 0
    return data


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
            raise CheckpointError(path, f"{keys[0]} {what}{more}", f"the parameters of {model.cfg.path}",
                                  "use the cfg that the checkpoint was made with" + made)
    if wrong:
        k = wrong[0]
        raise CheckpointError(path, f"{k} is {tuple(state[k].shape)}", f"{tuple(own[k].shape)} in {model.cfg.path}",
                              f"{len(wrong)} tensors differ: a pruned network needs the pruned cfg that was written with it{made}")


def _compare_cfgs(path, model: Darknet, text) -> None:
    """Warns where the same shapes would compute something else: other anchors, activations, routes."""
    if not isinstance(text, str) or text == model.cfg.text:
        return
    from .cfg import parse_cfg
    from .graph import Graph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nodes = Graph(parse_cfg(text, f"{path} (cfg inside)")).nodes
        except Exception as e:  # the text inside is only a second opinion
            nodes, reason = None, e
    if nodes is None:
        warnings.warn(f"{path}: the cfg stored inside cannot be read ({reason})", stacklevel=3)
        return
    ours = ("anchors", "mask", "activation", "size", "stride_x", "padding", "groups", "scale_x_y", "new_coords")
    for a, b in zip(nodes, model.graph.nodes, strict=False):
        differ = [k for k in ours if a.opts.get(k) != b.opts.get(k)]
        if a.type != b.type or a.inputs != b.inputs or differ:
            what = f"{differ[0]} is {a.opts.get(differ[0])} there" if differ else f"[{a.type}] reads {a.inputs} there"
            warnings.warn(f"{b.section.place}: the checkpoint {path} was made with another cfg: {what}", stacklevel=3)
            return


# --- together --------------------------------------------------------------------------------------------------------


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
    return 20 + 4 * sum(t.numel() for _, _, t in _arrays(model))


def parameters(model: Darknet) -> int:
    """Trainable parameters, counted from the cfg."""
    return sum(node_parameters(n) for n in model.graph.nodes)
