"""A score that looks at data: what readers lose by a channel even after the best linear repair, for each
multiply-add that cutting it saves.

It is the structured form of the optimal brain surgeon (Hassibi 1993), taken channel by channel as ZipLM does
(Kurtic 2023, arXiv 2302.04089): with H = F'F + ridge over a reader's unfolded inputs, removing input channel
j and solving the rest again leaves

    sum over filters of w_j' [(H^-1)_jj]^-1 w_j

over the k x k block of that channel. The channel that leaves least for each multiply-add goes, the weights
and H^-1 move to what they are without it, and so on: of two channels that say the same only one is cheap.
Each filter counts as much as the heads feel an error in it (sensitivity.py); readers are added up. Classes
that some reader reads together are ranked together.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DatasetError
from ..network.channels import Channels
from ..network.patches import Gram, draw, unfolded
from ..network.twins import twin
from ..network.walk import MEMORY, Walk
from .parts import convolution
from .sensitivity import sensitivity

POSITIONS = 128  # of a picture and layer
RIDGE = 1e-5  # of the mean of the diagonal of F'F
FEW = 16  # pictures that tell how much the heads feel
STEPS = 128  # in which the classes of one set go; fewer classes go one by one


def repair_error(model, channels: Channels, batches: Iterable, device="cpu") -> dict[int, np.ndarray]:
    """Convolution -> float64 (filters,): that of its class, the same for all that make it.

    Args:
        batches: yields (images (B, C, H, W), uint8 or float in 0..1; targets, which are not looked at).

    Raises:
        DatasetError: no pictures, or pictures that give numbers which are not finite.
    """
    pictures = [images for images, _ in batches]
    if not sum(map(len, pictures)):
        raise DatasetError("score repair", "no batch of training pictures", "at least one")
    probe = twin(model, device).eval()
    walk, score = Walk(probe, pictures, MEMORY), np.zeros(channels.count)
    macs = _macs(channels)
    few = [walk.picture(n) for n in range(len(pictures))]
    felt = sensitivity(probe, [x for batch in few for x in batch][:FEW])
    with torch.no_grad():
        waiting: dict[int, list[_Reader]] = {}
        for layer, together, last in _readers(channels):
            waiting.setdefault(together, []).append(_Reader(probe, walk, layer, channels, felt[layer]))
            if last:
                _eliminate(waiting.pop(together), channels, macs, score)
    return {layer: score[channels.ids[layer]] for layer in channels.convolutions}


def _readers(channels: Channels) -> list[tuple[int, int, bool]]:
    """(convolution, its set of classes, whether it is the last reader of that set), in layer order.

    Depthwise convolutions are left out: they go with the class that they read.
    """
    root = list(range(channels.count))

    def find(c: int) -> int:
        while root[c] != c:
            root[c] = c = root[root[c]]
        return c

    found = []
    for layer in channels.convolutions:
        node = channels.graph.nodes[layer]
        ids = channels.of(node.inputs[0])
        free = [c for c in np.unique(ids).tolist() if c not in channels.protected]
        if free and not node.opts["groups"] == len(ids) > 1:
            found.append((layer, free[0]))
            for c in free[1:]:
                root[find(c)] = find(free[0])
    last = {find(c): layer for layer, c in found}
    return [(layer, find(c), last[find(c)] == layer) for layer, c in found]


class _Reader:
    """A convolution that reads classes: its kernels, and the inverse of H, as they are without what has gone.

    Attributes:
        ids: the class of each input channel of a group that is left (depth,); the groups have the same.
        kernels: float64 (groups, filters, depth * taps), times the root of what the heads feel.
        inverse: float64 (groups, depth * taps, depth * taps).
    """

    def __init__(self, model, walk: Walk, layer: int, channels: Channels, felt: Tensor):
        conv = convolution(model, layer)
        source = model.graph.nodes[layer].inputs[0]
        depth, self.taps = conv.weight.shape[1], conv.weight[0, 0].numel()
        self.ids = channels.of(source)[:depth]
        gram = Gram(conv.groups, depth * self.taps, 0, walk.device)
        for number in range(len(walk.batches)):

            def watch(maps, made: Tensor, number=number) -> None:
                places = draw(len(made), tuple(made.shape[2:]), POSITIONS, number, made.device)
                features = unfolded(conv, maps[source], places)
                gram.add(features, features[:, :, :0])

            walk.through(number, layer, watch)
        h = gram.centred()[0] / gram.count
        h.diagonal(dim1=1, dim2=2).add_(RIDGE * h.diagonal(dim1=1, dim2=2).mean(1, keepdim=True))
        h.diagonal(dim1=1, dim2=2).add_(gram.rounding() / gram.count)
        factor, failed = torch.linalg.cholesky_ex(h)
        if failed.any():
            raise DatasetError(
                "score repair",
                f"the pictures give layer {layer} numbers that are not finite",
                "finite numbers",
                "look at the weights and the pictures",
            )
        self.inverse = torch.cholesky_inverse(factor)
        kernels = conv.weight.double().flatten(1) * felt.sqrt()[:, None]
        self.kernels = kernels.view(conv.groups, -1, depth * self.taps)

    def errors(self) -> np.ndarray:
        """What the removal of each input channel that is left leaves: float64, one for each of `ids`."""
        groups, filters, depth, taps = *self.kernels.shape[:2], len(self.ids), self.taps
        if not depth:
            return np.zeros(0)
        blocks = self.inverse.view(groups, depth, taps, depth, taps).diagonal(dim1=1, dim2=3)
        blocks = blocks.permute(0, 3, 1, 2).contiguous()
        kernels = self.kernels.reshape(groups, filters, depth, taps).permute(0, 2, 3, 1)
        solved = torch.linalg.solve(blocks, kernels)  # (groups, depth, taps, filters)
        return (solved * kernels).sum((0, 2, 3)).clamp(min=0).cpu().numpy()

    def remove(self, classes: np.ndarray) -> None:
        """Solves the rest again without some classes, which are then no inputs any more."""
        gone = np.isin(self.ids, classes)
        if not gone.any():
            return
        at, rest = (
            torch.from_numpy((np.flatnonzero(some)[:, None] * self.taps + np.arange(self.taps)).reshape(-1))
            for some in (gone, ~gone)
        )
        at, rest = at.to(self.inverse.device), rest.to(self.inverse.device)
        rows = self.inverse[:, at]
        across = rows[:, :, rest]
        solved = torch.linalg.solve(rows[:, :, at], across)
        self.kernels = self.kernels[:, :, rest] - self.kernels[:, :, at] @ solved
        self.inverse = self.inverse[:, rest][:, :, rest] - across.mT @ solved
        self.ids = self.ids[~gone]


def _eliminate(readers: list[_Reader], channels: Channels, macs: np.ndarray, score: np.ndarray) -> None:
    """Removes the classes of one set one after another and notes what each left for each multiply-add."""
    left = np.unique(np.concatenate([reader.ids for reader in readers]))
    left = np.array([c for c in left.tolist() if c not in channels.protected])
    at_once, level = -(-len(left) // STEPS), 0.0
    while len(left):
        error = np.zeros(channels.count)
        for reader in readers:
            np.add.at(error, reader.ids, reader.errors())
        worth = error[left] / np.maximum(macs[left], 1)
        order = np.argsort(worth, kind="stable")[:at_once]
        for place in order.tolist():
            level = max(level, float(worth[place]))  # what goes later is worth no less
            score[left[place]] = level
        for reader in readers:
            reader.remove(left[order])
        left = np.delete(left, order)


def _macs(channels: Channels) -> np.ndarray:
    """Class -> multiply-adds that go with it: of the filters that make it and of the kernels that read it."""
    found = np.zeros(channels.count)
    for layer in channels.convolutions:
        node = channels.graph.nodes[layer]
        groups, ids = node.opts["groups"], channels.of(node.inputs[0])
        each = node.opts["size"] ** 2 * node.shape[1] * node.shape[2]  # of one kernel
        np.add.at(found, channels.ids[layer], each * len(ids) // groups)
        if not groups == len(ids) > 1:
            np.add.at(found, ids, each * node.shape[0] // groups)
    return found
