"""Weights of a network with another number of classes: everything but the convolutions before the heads."""

from __future__ import annotations

from pathlib import Path

import torch

from ..base import files
from ..base.errors import CfgError, DarkslimError
from ..network import cfg_classes, weights
from ..network.arrays import in_order
from ..network.checkpoints import read_checkpoint
from ..network.darknet import Darknet
from ..network.foreign_keys import ours


def head_layers(model: Darknet) -> list[int]:
    """The convolutions that feed `[yolo]` heads."""
    return [head.index - 1 for head in model.heads]


def classes_of(model: Darknet, path: Path) -> int | None:
    """The number of classes that a file was made for, where that is all in which it differs from the network;
    None where it is no such file.
    """
    if not model.heads or any(model.cfg.layers[head.index].type != "yolo" for head in model.heads):
        return None
    try:
        head = files.read_head(path, "weights file", 4)
        archive = head.startswith(b"PK") or head[:1] == b"\x80"
        classes = _of_checkpoint(model, path) if archive else _of_weights(model, path)
    except DarkslimError:
        return None  # whoever loads it in earnest says what is wrong
    return classes if classes is not None and classes != model.heads[0].classes else None


def _of_weights(model: Darknet, path: Path) -> int | None:
    """By its length, which grows by the same for every class."""
    header = weights.read_header(path)
    body = path.stat().st_size - header.size
    heads, rest, each = set(head_layers(model)), 0, 0
    for layer, _, tensor in in_order(model):
        if layer not in heads:
            rest += tensor.numel()
    for head in model.heads:
        conv = getattr(model.module_list[head.index - 1], f"conv_{head.index - 1}")
        each += len(head.mask) * (conv.weight[0].numel() + 1)
    extra, left = divmod(body - 4 * rest, 4 * each)
    return extra - 5 if not left and extra > 5 else None


def _of_checkpoint(model: Darknet, path: Path) -> int | None:
    """By the convolution before the first head."""
    state, _ = ours(read_checkpoint(path)["model"], model.state_dict())
    found = set()
    for head in model.heads:
        layer = head.index - 1
        weight = state.get(f"module_list.{layer}.conv_{layer}.weight")
        if weight is None or weight.ndim != 4 or weight.shape[0] % len(head.mask):
            return None
        found.add(weight.shape[0] // len(head.mask) - 5)
    return found.pop() if len(found) == 1 and min(found) > 0 else None


def load_but_heads(model: Darknet, path: Path, classes: int) -> list[int]:
    """Loads a file that was made for another number of classes; the convolutions before the heads keep their
    values.

    Returns:
        Those layers.

    Raises:
        WeightsError, CheckpointError, CfgError: the file is of another network after all.
    """
    twin_cfg = cfg_classes.for_data(model.cfg, classes)
    try:
        twin = Darknet(twin_cfg)
    except CfgError as e:  # a head that something else reads as well
        raise CfgError(
            e.place, f"with {classes} classes, as {path} has, {e.found}", e.expected, e.remedy
        ) from None
    weights.load_weights(twin, path)
    heads = head_layers(model)
    own, state = model.state_dict(), twin.state_dict()
    with torch.no_grad():
        for key, tensor in own.items():
            if int(key.split(".")[1]) not in heads:
                tensor.copy_(state[key])
    return heads
