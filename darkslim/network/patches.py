"""Sampled positions of a convolution: what it reads there and what it makes there, and their Gram matrices.

A convolution is a linear map of unfolded inputs, so all that least squares needs of any number of pictures is
F'F, F'Y and a few sums: `Gram`. They are collected in float64; their size depends on the kernel, not on the
pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

BLOCK = 256  # rows of F'F that are worked out at a time


@dataclass(frozen=True)
class Places:
    """Positions in the output maps of one batch.

    Attributes:
        picture, y, x: int64 (n,).
    """

    picture: Tensor
    y: Tensor
    x: Tensor

    def subset(self, chosen: Tensor) -> Places:
        """Those that a bool (n,) names."""
        return Places(self.picture[chosen], self.y[chosen], self.x[chosen])


def draw(pictures: int, size: tuple[int, int], count: int, seed: int, device) -> Places:
    """`count` random positions of each picture, or all where a map (height, width) has no more."""
    height, width = size
    if height * width <= count:
        cells = torch.arange(height * width).repeat(pictures, 1)
    else:
        cells = torch.randint(
            height * width, (pictures, count), generator=torch.Generator().manual_seed(seed)
        )
    picture = torch.arange(pictures).view(-1, 1).expand_as(cells).reshape(-1)
    cells = cells.reshape(-1)
    return Places(*(t.to(device) for t in (picture, cells // width, cells % width)))


def values(maps: Tensor, places: Places, channels=slice(None)) -> Tensor:
    """What maps (B, C, H, W) hold at n places: float64 (n, C)."""
    return maps[places.picture, :, places.y, places.x][:, channels].double()


def unfolded(conv: nn.Conv2d, maps: Tensor, places: Places) -> Tensor:
    """What a convolution reads at n places of its output: float64 (groups, n, C / groups * k * k).

    The last axis runs as that of `conv.weight.flatten(1)`; padding is zero.

    Args:
        maps: its input (B, C, H, W).
    """
    height, width = maps.shape[2:]
    taps = [torch.arange(k, device=maps.device) for k in conv.kernel_size]
    ky, kx = (t.reshape(-1) for t in torch.meshgrid(*taps, indexing="ij"))
    y = places.y[:, None] * conv.stride[0] - conv.padding[0] + ky * conv.dilation[0]
    x = places.x[:, None] * conv.stride[1] - conv.padding[1] + kx * conv.dilation[1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    read = maps[places.picture[:, None], :, y.clamp(0, height - 1), x.clamp(0, width - 1)]  # (n, k k, C)
    read = read * inside[..., None]
    n, k, channels = read.shape
    return (
        read.view(n, k, conv.groups, channels // conv.groups)
        .permute(2, 0, 3, 1)
        .reshape(conv.groups, n, -1)
        .double()
    )


class Gram:
    """F'F and F'Y about the means, of any number of positions.

    Args:
        groups: of the convolution. width: of its unfolded input, in each group. outputs: in each group.
    """

    def __init__(self, groups: int, width: int, outputs: int, device):
        def zeros(*shape):
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        self.count, self._lower = 0, True  # whether F'F is whole below its diagonal
        self.ff, self.fy, self.yy = zeros(width, width), zeros(width, outputs), zeros(outputs)
        self.f, self.y = zeros(width), zeros(outputs)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Takes in n positions.

        Args:
            features: float64 (groups, n, width). targets: float64 (groups, n, outputs).
        """
        self.count += features.shape[1]
        width = features.shape[2]
        if width <= BLOCK:
            self.ff.baddbmm_(features.mT, features)
        else:  # nearly half of the products: what lies below the diagonal is known by what lies above it
            self._lower = False
            for whole, some in zip(self.ff, features, strict=True):
                for a in range(0, width, BLOCK):
                    whole[a : a + BLOCK, a:].addmm_(some[:, a : a + BLOCK].T, some[:, a:])
        self.fy.baddbmm_(features.mT, targets)
        self.yy += (targets**2).sum(1)
        self.f += features.sum(1)
        self.y += targets.sum(1)

    def merge(self, other: Gram) -> None:
        """Takes in what another one has."""
        self._fill()
        other._fill()
        self.count += other.count
        for name in ("ff", "fy", "yy", "f", "y"):
            getattr(self, name).add_(getattr(other, name))

    def outputs(self, chosen: Tensor) -> Gram:
        """The same of some outputs in each group, by number; one may be chosen several times."""
        self._fill()
        part = Gram(len(self.f), 0, len(chosen), self.f.device)
        part.count, part._lower, part.ff, part.f = self.count, self._lower, self.ff, self.f
        part.fy, part.yy, part.y = self.fy[:, :, chosen], self.yy[:, chosen], self.y[:, chosen]
        return part

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """F'F (groups, width, width), F'Y (groups, width, outputs), Y'Y (groups, outputs) about the means."""
        n = max(self.count, 1)
        self._fill()
        return (
            torch.baddbmm(self.ff, self.f[:, :, None], self.f[:, None, :], alpha=-1 / n),
            torch.baddbmm(self.fy, self.f[:, :, None], self.y[:, None, :], alpha=-1 / n),
            (self.yy - self.y**2 / n).clamp(min=0),
        )

    def _fill(self) -> None:
        """Copies what lies above the diagonal of F'F to below it, where it was not worked out."""
        if not self._lower:
            width = self.ff.shape[1]
            for a in range(0, width, BLOCK):
                self.ff[:, a + BLOCK :, a : a + BLOCK] = self.ff[:, a : a + BLOCK, a + BLOCK :].mT
            self._lower = True

    def rounding(self) -> Tensor:
        """What centring may leave of constant inputs, on the diagonal of F'F: (groups, 1); a ridge below it
        would be none.
        """
        return 1e-13 * self.ff.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) + 1e-30

    def offsets(self, weights: Tensor) -> Tensor:
        """The best offsets (groups, outputs) beside weights (groups, width, outputs)."""
        return (self.y - (self.f[:, None, :] @ weights)[:, 0]) / max(self.count, 1)

    def errors(self, weights: Tensor, offsets: Tensor) -> Tensor:
        """|F W + b - Y|^2 (groups, outputs)."""
        ff, fy, yy = self.centred()
        off = offsets - self.offsets(weights)
        quadratic = (weights * (ff @ weights)).sum(1)
        return (yy - 2 * (weights * fy).sum(1) + quadratic).clamp(min=0) + self.count * off**2
