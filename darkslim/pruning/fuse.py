"""Batch norms folded into the convolutions before them.

    gamma * (W x - mean) / sqrt(var + eps) + beta  =  (f W) x + (beta - f mean)
    f = gamma / sqrt(var + eps)

Readers of Darknet files disagree about eps: Darknet has 1e-5, OpenCV 1e-6, and channels of tiny variance then
differ without bound. A file without batch norms leaves nothing to disagree about. It is for deployment: a
network without gammas can be trained no longer for sparsity, nor pruned.
"""

from __future__ import annotations

import numpy as np
import torch

from ..base.errors import ProofError, WeightsError
from ..network.cfg import Cfg
from ..network.cfg_plain import plain
from ..network.darknet import Darknet
from ..network.layers import BN_EPS
from ..network.node import Node
from ..network.twins import empty, twin
from .parts import array, batch_norm, convolution, put
from .verify import TOLERANCE, Proof, difference, inputs, largest


def fuse(model) -> Darknet:
    """The same network without batch norms, in eval mode and on the CPU, with its own cfg. `model` stays as
    it is.

    The arithmetic is float64, what is stored is float32.

    Raises:
        WeightsError: a kernel or bias is no finite float32 number after folding; names the layer.
    """
    fused = empty(fused_cfg(model.cfg))
    for node in model.graph.nodes:
        if node.type == "convolutional":
            weight, bias = _folded(model, node)
            conv = convolution(fused, node.index)
            for name, tensor, values in (("kernels", conv.weight, weight), ("bias", conv.bias, bias)):
                put(tensor, values)
                _require_finite(node, name, tensor)
        elif node.type == "shortcut" and node.opts["weights_type"] != "none":
            put(fused.module_list[node.index].weights, array(model.module_list[node.index].weights))
    fused.seen = model.seen
    return fused.eval()


def fused_cfg(cfg: Cfg) -> Cfg:
    """The cfg without `batch_normalize`, ready to be written; nothing else changes."""
    new = plain(cfg)
    for section in new.layers:
        if section.type == "convolutional":
            section.drop("batch_normalize")
    return new


def _folded(model, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Kernels (filters, C / groups, k, k) and bias (filters,) in float64."""
    conv, bn = convolution(model, node.index), batch_norm(model, node.index)
    weight = array(conv.weight)
    if bn is None:
        return weight, array(conv.bias)
    with np.errstate(invalid="ignore", over="ignore"):  # what comes of it is refused with its layer
        factor = array(bn.weight) / np.sqrt(array(bn.running_var) + BN_EPS)
        return weight * factor.reshape(-1, 1, 1, 1), array(bn.bias) - factor * array(bn.running_mean)


def _require_finite(node: Node, name: str, tensor: torch.Tensor) -> None:
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        found = f"{bad} of {tensor.numel()} values of {name} are not finite once the batch norm is folded in"
        raise WeightsError(
            node.section.place,
            found,
            "numbers that float32 can hold",
            "write this network with its batch norms",
        )


def prove_fused(model, fused: Darknet, images: int = 2, seed: int = 0) -> Proof:
    """Compares the fused network with the one that it was made of, on random inputs and in float64.

    What is left is the rounding of the folded values to float32. In the result, `error` equals `relative`.

    Raises:
        ProofError: the difference is above 1e-5 of the largest value, or no number.
    """
    if _shapes(model) != _shapes(fused):
        raise ProofError(
            fused.cfg.path,
            "its layers are not those of the network to compare with",
            remedy="nothing was written",
        )
    x, size = inputs(model, images, seed)
    with torch.inference_mode():
        expected, maps = (twin(net, "cpu", torch.float64).eval().raw_heads(x) for net in (model, fused))
    apart = difference(maps, expected)
    relative = apart / largest(expected)
    if not relative <= TOLERANCE:
        raise ProofError(
            fused.cfg.path,
            f"the fused network differs from the one with batch norms by {relative:.1e} of the largest value",
            f"at most {TOLERANCE:.0e}",
            "nothing was written",
        )
    return Proof(apart, relative, relative, size, images)


def _shapes(model) -> list[tuple[str, tuple[int, int, int]]]:
    return [("image", model.graph.input_shape), *((node.type, node.shape) for node in model.graph.nodes)]
