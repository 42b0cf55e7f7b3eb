"""The proof: compact against masked on random inputs, then what lies on the disk against what is in memory.

Masked and compact are run in float64 with their stored (float32) parameters, so that a difference is one of
surgery, not of the order in which a float32 convolution adds up. Input sizes are small multiples of the
network's stride: a few cells a side hold both the interior and all four borders.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..base import files
from ..base.errors import CfgError, CheckpointError, ProofError, WeightsError
from ..network import arrays, checkpoints, weights
from ..network.cfg import read_cfg
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.graph import Graph
from ..network.twins import empty, twin
from . import carriers, constants
from .parts import convolution
from .plan import FOLDS, PrunePlan, mask
from .surgery import apply

TOLERANCE = 1e-5  # of the largest value of all raw head maps


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        max_abs_diff: largest |compact - masked| over all raw head maps.
        relative: the same, relative to the largest value of the masked maps.
        error: relative difference to what the way of folding promises: for `exact` the masked network, for
            `interior` the masked network whose constants go on beyond the border, for `none` the masked
            network in which nobody reads a cut channel. This is what must stay below `TOLERANCE`.
        size: (height, width) of the inputs.
        images: how many there were.
    """

    max_abs_diff: float
    relative: float
    error: float
    size: tuple[int, int]
    images: int


def prove(
    model, plan: PrunePlan, compact: Darknet, fold: str = "exact", images: int = 2, seed: int = 0
) -> Proof:
    """Compares the compact network with the masked one on random inputs.

    Raises:
        ProofError: the difference is above 1e-5 of the largest value, or no number.
    """
    assert fold in FOLDS, fold
    x, size = inputs(model, images, seed)
    double = mask(twin(model, "cpu", torch.float64), plan.keep).eval()
    with torch.inference_mode():
        masked_maps = double.raw_heads(x)
        if fold != "exact":
            _fold_as(double, model, plan, interior=fold == "interior")
        promised = double.raw_heads(x) if fold != "exact" else masked_maps
        del double
        maps = twin(compact, "cpu", torch.float64).eval().raw_heads(x)
    scale = largest(masked_maps)
    apart, error = difference(maps, masked_maps), difference(maps, promised) / scale
    if not error <= TOLERANCE:
        raise ProofError(
            compact.cfg.path,
            f"the compact network differs from the masked one by {error:.1e} of the largest value",
            f"at most {TOLERANCE:.0e} (folding: {fold})",
            "nothing was written",
        )
    return Proof(apart, apart / scale, error, size, images)


def fold_differences(model, plan: PrunePlan, images: int = 2, seed: int = 0) -> dict[str, float]:
    """Way of folding -> largest |compact - masked| over all raw head maps, of the largest value of the masked
    ones.

    What each way would cost: `exact` is float rounding, the others are what they leave out. Same inputs as
        `prove`.
    """
    x, _ = inputs(model, images, seed)
    with torch.inference_mode():
        masked_maps = mask(twin(model, "cpu", torch.float64), plan.keep).eval().raw_heads(x)
        found = {}
        for fold in FOLDS:
            maps = twin(apply(model, plan, fold), "cpu", torch.float64).eval().raw_heads(x)
            found[fold] = difference(maps, masked_maps) / largest(masked_maps)
    return found


def inputs(model, images: int, seed: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Random pictures, float64 (images, C, H, W), and their (height, width)."""
    size = proof_size(model.graph)
    g = torch.Generator().manual_seed(seed)
    return torch.rand(images, model.graph.input_shape[0], *size, generator=g, dtype=torch.float64), size


def largest(maps: list[torch.Tensor]) -> float:
    """The largest value of all maps, which differences are relative to; 1 where all are zero."""
    return max(float(m.abs().max()) for m in maps) or 1.0


def difference(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Largest |a - b| over all maps; NaN where shapes or numbers cannot be compared."""
    if [m.shape for m in a] != [m.shape for m in b]:
        return float("nan")
    return float(
        np.max([float((p - q).abs().max()) for p, q in zip(a, b, strict=True)])
    )  # np.max keeps NaN, max does not


def proof_size(graph: Graph) -> tuple[int, int]:
    """(height, width): four by five cells of the coarsest map, or the cfg's own size where that is smaller or
    needed.
    """
    _, height, width = graph.input_shape
    stride = graph.stride
    wanted = (min(height, 4 * stride), min(width, 5 * stride))
    if wanted == (height, width) or height % stride or width % stride:
        return height, width
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Graph(graph.cfg, *wanted)
    except CfgError:
        return height, width
    return wanted


def _fold_as(double, model, plan: PrunePlan, interior: bool) -> None:
    """Turns a masked network into what a way of folding promises.

    Every convolution is run on inputs that are padded by hand: cut channels hold their constant on the
    padding too (`interior`), or zero everywhere.
    """
    channels = Channels(model.graph)
    cut = carriers.cut_classes(channels, plan.keep)
    values = constants.propagate(model, channels, carriers.cut_constants(model, channels, plan.keep))
    for layer in channels.convolutions:
        source = channels.graph.nodes[layer].inputs[0]
        gone = cut[channels.of(source)]
        if gone.any():
            constant = torch.from_numpy(
                np.where(gone, values[source], 0) if interior else np.zeros(len(gone))
            ).view(1, -1, 1, 1)
            convolution(double, layer).register_forward_hook(_padded_with(torch.from_numpy(gone), constant))


def _padded_with(gone: torch.Tensor, constant: torch.Tensor) -> Callable:
    def hook(conv, inputs, output):
        x = F.pad(inputs[0], (conv.padding[1],) * 2 + (conv.padding[0],) * 2)
        x = torch.where(gone.view(1, -1, 1, 1), constant, x)
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)

    return hook


def save_proven(
    compact: Darknet,
    cfg_path,
    checkpoint_path,
    weights_path,
    extra: dict | None = None,
    more: list[files.Save] | None = None,
) -> list[str]:
    """Writes cfg, `.pth` and `.weights`, reloads each from the disk and compares: all of them are written, or
    none.

    The `.weights` file opens with version 0.2.5 and `seen` 0, so that a finetune starts from its beginning.

    Args:
        extra: plain values for the checkpoint.
        more: other files to be written with them (pictures), or not at all.

    Returns:
        A sentence for each file of an earlier network, which gets a number.

    Raises:
        ProofError: a file does not give back the network that was to be written.
        FileError: a file cannot be written.
    """
    arrays.require_finite(compact, weights_path, ProofError)
    cfg_path, checkpoint_path, weights_path = Path(cfg_path), Path(checkpoint_path), Path(weights_path)
    cfg = compact.cfg.copy(str(cfg_path))
    data = checkpoints.checkpoint(compact, extra)
    group = [
        files.Save(cfg_path, cfg.to_bytes()),
        files.Save(checkpoint_path, lambda path: checkpoints.write(data, path)),
        files.Save(weights_path, weights.weights_bytes(compact, 0)),
        *(more or []),
    ]
    return files.save_all(
        group,
        lambda where: prove_files(compact, where[cfg_path], where[checkpoint_path], where[weights_path]),
        keep_old=True,
    )


def prove_files(compact: Darknet, cfg_path, checkpoint_path, weights_path, seed: int = 0) -> None:
    """Loads what was written and compares its outputs with those of the network in memory, bit by bit.

    Raises:
        ProofError: a file cannot be read back, or gives other outputs.
    """
    size = proof_size(compact.graph)
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(1, compact.graph.input_shape[0], *size, generator=g)
    with torch.inference_mode():
        expected = compact.eval().raw_heads(x)
        for path in (weights_path, checkpoint_path):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    again = empty(read_cfg(cfg_path))
                    weights.load_weights(again, path)
            except (CfgError, WeightsError, CheckpointError) as e:
                raise ProofError(path, f"does not load back: {e}", remedy="nothing was written") from e
            maps = again.eval().raw_heads(x)
            if not all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True)):
                raise ProofError(
                    path,
                    f"gives other outputs than the network in memory (by {difference(maps, expected):.1e})",
                    "the same, bit by bit",
                    "nothing was written; is the disk sound?",
                )
