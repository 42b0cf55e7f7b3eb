"""Section type -> module: one row a type in `BUILDERS`.

A module is called with the outputs of the layers that its node reads, in that order. The modules of a
convolution carry the names of the reference (`conv_N`, `batch_norm_N`), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .node import Node

BN_EPS = 1e-5

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "logistic": nn.Sigmoid,
    "loggy": lambda: Loggy(),
    "tanh": nn.Tanh,
    "hardtan": lambda: nn.Hardtanh(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "selu": lambda: nn.SELU(inplace=True),
    "gelu": lambda: nn.GELU(approximate="tanh"),
    "swish": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
}


def activate(name: str, x: Tensor) -> Tensor:
    """An activation by its Darknet name, on any tensor; the input is left as it is."""
    return ACTIVATIONS[name]()(x.clone())


class Loggy(nn.Module):
    """2 / (1 + exp(-x)) - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return 2 * torch.sigmoid(x) - 1


def build(node: Node, drawn: bool = True) -> nn.Module:
    """The module of a layer, with fresh random parameters; not `drawn`: kernels are whatever memory holds."""
    if not drawn and node.type == "convolutional":
        return _convolutional(node, _Blank)
    return BUILDERS[node.type](node)


class _Blank(nn.Conv2d):
    """A convolution while it is made without drawing numbers for it."""

    def reset_parameters(self) -> None:
        """Kernels are about to be written."""


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains where each channel has one value, as behind [avgpool] with one image: one
    value has no variance, so the running statistics stand in for it and stay as they are. (torch raises
    there, Darknet divides by zero.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


def _convolutional(node: Node, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Module:
    o, i = node.opts, node.index
    block = nn.Sequential()
    convolution = kind(
        node.in_shapes[0][0],
        o["filters"],
        o["size"],
        (o["stride_y"], o["stride_x"]),
        o["padding"] * o["dilation"],
        o["dilation"],
        o["groups"],
        bias=not o["batch_normalize"],
    )
    convolution.__class__ = nn.Conv2d  # other libraries know layers by their class
    block.add_module(f"conv_{i}", convolution)
    if o["batch_normalize"]:
        block.add_module(f"batch_norm_{i}", BatchNorm(o["filters"], eps=BN_EPS))
    if o["activation"] != "linear":
        block.add_module(f"{o['activation']}_{i}", ACTIVATIONS[o["activation"]]())
    return block


def _is_recorded(x: Tensor) -> bool:
    """Whether gradients of what is done to x will be asked for, or its operations written down."""
    return torch.jit.is_tracing() or torch.is_grad_enabled() and x.requires_grad


class MaxPool(nn.Module):
    """Darknet's pool: padding // 2 before, the rest after, filled with minus infinity.

    Halving is a maximum of slices where no gradient is wanted: the pooling of PyTorch also notes where each
    maximum came from, which takes 2 times as long for maps whose channels come last, and 10 times for others.
    """

    def __init__(self, node: Node):
        super().__init__()
        o = node.opts
        self.size, self.stride, self.before, self.padding = (
            o["size"],
            (o["stride_y"], o["stride_x"]),
            o["padding"] // 2,
            o["padding"],
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        pads = [0, 0, 0, 0]
        for axis, (length, stride) in enumerate(zip(x.shape[2:], self.stride, strict=True)):
            out = (length + self.padding - self.size) // stride + 1
            pads[2 - 2 * axis] = self.before
            pads[3 - 2 * axis] = max((out - 1) * stride + self.size - length - self.before, 0)
        even = pads[0] == pads[1] == pads[2] == pads[3] <= self.size // 2
        halves = self.size == 2 and self.stride == (2, 2) and not any(pads)
        if halves and x.shape[2] % 2 == x.shape[3] % 2 == 0 and not _is_recorded(x):
            rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
            return torch.maximum(rows[..., ::2], rows[..., 1::2])
        if even:
            return F.max_pool2d(x, self.size, self.stride, self.before)
        return F.max_pool2d(F.pad(x, pads, value=float("-inf")), self.size, self.stride)


class AvgPool(nn.Module):
    """The mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return x.mean((2, 3), keepdim=True)


class Upsample(nn.Module):
    """Nearest neighbour, times a scale."""

    def __init__(self, node: Node):
        super().__init__()
        self.stride, self.scale = node.opts["stride"], node.opts["scale"]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, s H, s W)."""
        x = F.interpolate(x, scale_factor=self.stride, mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Route(nn.Module):
    """Concatenation; with groups one slice of each input."""

    def __init__(self, node: Node):
        super().__init__()
        self.groups, self.group = node.opts["groups"], node.opts["group_id"]

    def forward(self, *xs: Tensor) -> Tensor:
        """Maps of equal H, W -> (B, sum of C / groups, H, W)."""
        if self.groups > 1:
            xs = tuple(x.chunk(self.groups, 1)[self.group] for x in xs)
        return xs[0] if len(xs) == 1 else torch.cat(xs, 1)


class Shortcut(nn.Module):
    """The previous layer plus the first min(C) channels of each other one, weighted if the cfg says so."""

    def __init__(self, node: Node):
        super().__init__()
        o = node.opts
        self.kind, self.normalization = o["weights_type"], o["weights_normalization"]
        self.activation = ACTIVATIONS[o["activation"]]()
        if self.kind != "none":
            columns = node.shape[0] if self.kind == "per_channel" else 1
            self.weights = nn.Parameter(torch.ones(len(node.inputs), columns))

    def factors(self) -> Tensor | None:
        """(inputs, C or 1) factors of the sum, normalised as Darknet does; None if the shortcut has no
        weights.
        """
        if self.kind == "none":
            return None
        w = self.weights
        if self.normalization == "softmax":
            w = (w - w.max(0, keepdim=True).values).exp()
            return w / (w.sum(0, keepdim=True) + 1e-4)
        if self.normalization in ("relu", "avg_relu"):
            w = w.clamp(min=0)
            return w / (w.sum(0, keepdim=True) + 1e-4)
        return w

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """(B, C, H, W), and maps of the same H, W -> (B, C, H, W)."""
        factors = self.factors()
        if factors is not None:
            out = sum(f.view(1, -1, 1, 1) * t for f, t in zip(factors, (x, *others), strict=True))
            return self.activation(out)
        for other in others:
            least = min(x.shape[1], other.shape[1])
            if x.shape[1] == least:
                x = x + other[:, :least]
            else:
                x = torch.cat((x[:, :least] + other, x[:, least:]), 1)
        return self.activation(x)


class Product(nn.Module):
    """[sam] and [scale_channels]: the other layer times this one, which broadcasts."""

    def __init__(self, node: Node):
        super().__init__()
        self.activation = ACTIVATIONS[node.opts["activation"]]()

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, 1, 1), and (B, C, H, W) -> (B, C, H, W)."""
        return self.activation(other * x)


class Reorg3d(nn.Module):
    """Space to depth; output channel (dy * s + dx) * C + c."""

    def __init__(self, node: Node):
        super().__init__()
        self.stride = node.opts["stride"]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, s s C, H / s, W / s)."""
        b, c, h, w = x.shape
        s = self.stride
        x = x.reshape(b, c, h // s, s, w // s, s)
        return x.permute(0, 3, 5, 1, 2, 4).reshape(b, s * s * c, h // s, w // s)


class Reorg(nn.Module):
    """Darknet's old reorg: a scrambled order that its own reading of the buffer defines.

    The buffer of (C, H, W) is read as (C / s^2, s H, s W), rearranged from depth to space the wrong way
    round, and named (s^2 C, H / s, W / s).
    """

    def __init__(self, node: Node):
        super().__init__()
        self.stride = node.opts["stride"]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, s s C, H / s, W / s)."""
        b, c, h, w = x.shape
        s = self.stride
        x = x.reshape(b, c // (s * s), h, s, w, s)
        return x.permute(0, 3, 5, 1, 2, 4).reshape(b, s * s * c, h // s, w // s)


BUILDERS: dict[str, Callable[[Node], nn.Module]] = {
    "convolutional": _convolutional,
    "maxpool": MaxPool,
    "avgpool": lambda node: AvgPool(),
    "upsample": Upsample,
    "dropout": lambda node: nn.Dropout(node.opts["probability"]),
    "route": Route,
    "shortcut": Shortcut,
    "sam": Product,
    "scale_channels": Product,
    "reorg": Reorg,
    "reorg3d": Reorg3d,
    "yolo": lambda node: nn.Identity(),
    "region": lambda node: nn.Identity(),
}
