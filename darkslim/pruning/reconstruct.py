"""Least-squares reconstruction after a cut (He 2017, arXiv 1707.06168): what stays is solved again so that it
makes up for what went.

Layer by layer in the order of the graph, each convolution's remaining kernels W and offsets b become

    argmin |F W + b - Y|^2 + ridge |W - W_0|^2

over sampled positions of training pictures: F is what it reads in the *compact* network as it is by then, Y
what the same filters made before the cut, W_0 the exact cut. Where a convolution is the last summand of a
shortcut, Y also holds what the other summands have lost, as far as one step along the slope of its activation
goes. Ridges are tried on pictures that were left out of the solution. A filter that would not come nearer to
Y stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.errors import DatasetError
from ..network import layers
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.patches import Gram, Places, draw, unfolded, values
from ..network.walk import MEMORY, Maps, Walk
from .carriers import cut_classes
from .parts import batch_norm, convolution
from .plan import PrunePlan, check
from .surgery import staying

POSITIONS = 256  # of a picture and layer
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean of the diagonal of F'F
RIDGE = 1e-2  # where there are too few pictures to try
LEFT_OUT = 4  # one picture in so many tries the ridges
WIDEST = 8192  # unfolded inputs up to which F'F is held twice, to try ridges
SAME = 1e-10  # of the variance: an error so small is rounding


@dataclass(frozen=True)
class Fit:
    """How a convolution came out, on the pictures that it was solved on.

    Attributes:
        layer: its number in the compact network.
        before, after: |F W + b - Y|^2 over the variance of Y, mean over the filters; `before` with its
            kernels of the exact cut, behind layers that were solved already.
        ridge: the one that was taken, of the mean of the diagonal; None where nothing was to be done.
    """

    layer: int
    before: float
    after: float
    ridge: float | None


@dataclass(frozen=True)
class Reconstruction:
    """What `reconstruct` did.

    Attributes:
        pictures: how many it looked at.
        fits: one a convolution behind the first cut, in the order of the graph.
    """

    pictures: int
    fits: tuple[Fit, ...]


def reconstruct(
    model: Darknet,
    compact: Darknet,
    plan: PrunePlan,
    batches: Iterable,
    *,
    target: Darknet | None = None,
    numbers: Mapping[int, int] | None = None,
    positions: int = POSITIONS,
    memory: int = MEMORY,
    seed: int = 0,
    progress: Callable[..., Iterable] = lambda layers, **_: layers,
) -> Reconstruction:
    """Solves the convolutions of `compact` again, in place; `model` is only read. Both on one device.

    After an error `compact` is as it was.

    Args:
        model, plan: the network and the plan that `compact` was made from.
        batches: yields (images (B, C, H, W), uint8 or float in 0..1; targets, which are not looked at).
        target, numbers: the network whose outputs are wanted, where that is not `model` (residual blocks were
            removed), and its layer -> layer of `model`, of those that stay.
        positions: sampled of each picture and layer.
        memory: bytes of maps that may be held.

    Raises:
        RequestError: the plan is for another network.
        DatasetError: no pictures, or pictures that give numbers which are not finite.
    """
    check(plan, Channels(model.graph))
    pictures = [images for images, _ in batches]
    if not sum(map(len, pictures)):
        raise DatasetError("reconstruction", "no batch of training pictures", "one or more")
    job = _Job(model, compact, plan, target or model, numbers, pictures, positions, memory, seed)
    before = {name: value.clone() for name, value in compact.state_dict().items()}
    modes = {network: network.training for network in {job.target, compact}}
    try:
        for network in modes:
            network.eval()
        with torch.no_grad():
            fits = [job.solve(layer) for layer in progress(job.layers, desc="reconstructing")]
    except BaseException:
        compact.load_state_dict(before)
        raise
    finally:
        for network, mode in modes.items():
            network.train(mode)
    return Reconstruction(job.after.pictures, tuple(fits))


class _Job:
    """One reconstruction on its way through the layers."""

    def __init__(self, model, compact, plan, target, numbers, pictures, positions, memory, seed):
        self.compact, self.target, self.plan = compact, target, plan
        self.positions, self.seed = positions, seed
        self.old = (
            {new: old for old, new in numbers.items()}  # layer of compact -> layer of target
            if numbers is not None
            else {node.index: node.index for node in compact.graph.nodes}
        )
        channels = Channels(model.graph)
        stays = staying(model, channels, plan, compact)
        self.rows = {layer: np.flatnonzero(stays[channels.ids[layer]]) for layer in channels.convolutions}
        weights = sum(p.numel() * p.element_size() for p in target.parameters())
        share = sum(p.numel() * p.element_size() for p in compact.parameters()) / weights
        self.after = Walk(compact, pictures, int(memory * share / (1 + share)) or 1)
        self.before = Walk(target, pictures, int(memory / (1 + share)))
        self.layers = self._touched(channels)

    def _touched(self, channels: Channels) -> list[int]:
        """The convolutions whose inputs are not what they were."""
        same, touched, cut = {-1: True}, [], cut_classes(channels, self.plan.keep)
        for node in self.compact.graph.nodes:
            was = self.target.graph.nodes[self.old[node.index]]
            there = tuple(self.old.get(i, -1) for i in node.inputs)
            same[node.index] = there == tuple(was.inputs) and all(same[i] for i in node.inputs)
            if node.type == "convolutional":
                same[node.index] &= not cut[channels.of(node.inputs[0])].any()
                if not same[node.index]:
                    touched.append(node.index)
        return touched

    def solve(self, layer: int) -> Fit:
        """One convolution, from the pictures to its new kernels."""
        conv, bn = convolution(self.compact, layer), batch_norm(self.compact, layer)
        fit, tried = self._collect(layer, conv)
        old = _grouped(conv)
        offset = _offset(conv, bn, self._norm(layer))
        fitted, ridge = _solution(fit, tried, old)
        if tried is not None:
            fit.merge(tried)
        if ridge is not None and tried is not None:
            fitted = _ridge(fit, old, (ridge,))[ridge]
        errors = fit.errors(old, offset)
        if not torch.isfinite(errors).all():
            raise DatasetError(
                "reconstruction",
                f"layer {layer} makes numbers that are not finite",
                "finite numbers",
                "look at the weights and the pictures",
            )
        scale = fit.centred()[2] + 1e-30
        alive = torch.from_numpy(self.plan.keep[layer][self.rows[layer]]).to(errors.device).view_as(errors)
        if ridge is None or not (errors > SAME * scale)[alive].any():
            relative = _mean(errors / scale, alive)
            return Fit(layer, relative, relative, None)
        new = fitted.to(conv.weight.dtype).double()  # as it will be stored
        shift = fit.offsets(new)
        stored = _stored_offset(bn, self._norm(layer), shift)
        after = fit.errors(new, stored)
        better = alive & (after < errors)
        self._write(conv, bn, layer, new, shift, better)
        after = torch.where(better, after, errors)
        return Fit(layer, _mean(errors / scale, alive), _mean(after / scale, alive), ridge)

    def _norm(self, layer: int):
        """The batch norm before the cut, its channels that stay; None where there is none."""
        bn = batch_norm(self.target, self.old[layer])
        if bn is None:
            return None
        rows = torch.from_numpy(self.rows[layer]).to(bn.weight.device)
        names = ("weight", "bias", "running_mean", "running_var")
        return {name: getattr(bn, name)[rows].double() for name in names} | {"eps": bn.eps}

    def _collect(self, layer: int, conv) -> tuple[Gram, Gram | None]:
        """F'F and F'Y of all pictures, or of three in four and of the rest."""
        rows = torch.from_numpy(self.rows[layer]).to(self.after.device)
        width = conv.weight[0].numel()
        splits = self.after.pictures >= LEFT_OUT and width <= WIDEST

        def gram() -> Gram:
            return Gram(conv.groups, width, len(rows) // conv.groups, self.after.device)

        fit, tried = gram(), gram() if splits else None
        first = np.cumsum([0, *map(len, self.after.batches)])
        for number in range(len(self.after.batches)):
            now = self.after.before(number, layer)
            source = now[self.compact.graph.nodes[layer].inputs[0]]

            def watch(maps: Maps, made: Tensor, now=now, source=source, number=number) -> None:
                seed = hash((self.seed, layer, number)) % (1 << 63)
                places = draw(len(made), tuple(made.shape[2:]), self.positions, seed, made.device)
                for into, chosen in _split(places, first[number], fit, tried):
                    wanted = values(made, chosen, rows)
                    wanted = wanted + self._lost(layer, wanted, maps, now, chosen)
                    wanted = wanted.view(len(wanted), conv.groups, len(rows) // conv.groups).transpose(0, 1)
                    into.add(unfolded(conv, source, chosen), wanted)

            self.before.through(number, self.old[layer], watch)
        return fit, tried

    def _lost(self, layer: int, made: Tensor, maps: Maps, now: Maps, places: Places) -> Tensor | float:
        """What the other summands of the shortcut behind a convolution have lost, in what it makes.

        One step of majorization: with z before the activation a, |a(z) - t|^2 is lowered by moving z by
        a'(z) (t - a(z)), where t - a(z) is what was lost.

        Args:
            made: what it made before the cut (n, filters that stay).
            maps, now: what lies before the layer in the network before the cut, and in the compact one.
        """
        readers = self.compact.graph.consumers[layer]
        node = self.compact.graph.nodes[readers[0]] if len(readers) == 1 else None
        if node is None or node.type != "shortcut" or node.opts["weights_type"] != "none":
            return 0.0
        was = self.target.graph.nodes[self.old[node.index]]
        others = [
            (a, b) for a, b in zip(was.inputs, node.inputs, strict=True) if (a, b) != (self.old[layer], layer)
        ]
        if len(others) != len(node.inputs) - 1 or not all(a in maps and b in now for a, b in others):
            return 0.0  # it is not the last summand
        lost = torch.zeros_like(made)
        rows = torch.from_numpy(self.rows[layer]).to(made.device)
        for a, b in others:
            shared = min(made.shape[1], now[b].shape[1])
            there = rows[:shared].clamp(max=maps[a].shape[1] - 1)
            lost[:, :shared] += values(maps[a], places, there) - values(now[b], places)[:, :shared]
        name = self.compact.graph.nodes[layer].opts["activation"]
        norm = self._norm(layer)
        if norm is None:
            return lost * _slope(name, made)
        factor = norm["weight"] / (norm["running_var"] + norm["eps"]).sqrt()
        usable = factor.abs() > 1e-6 * factor.abs().max()
        slope = _slope(name, (made - norm["running_mean"]) * factor + norm["bias"])
        return torch.where(usable, lost * slope / torch.where(usable, factor, 1.0), 0.0)

    def _write(self, conv, bn, layer, new: Tensor, shift: Tensor, better: Tensor) -> None:
        """Kernels and offsets of the filters that came nearer."""
        mask, norm = better.reshape(-1), self._norm(layer)
        kernels = new.transpose(1, 2).reshape(conv.weight.shape).to(conv.weight.dtype)
        conv.weight[mask] = kernels[mask]
        if bn is None:
            conv.bias[mask] = shift.reshape(-1).to(conv.bias.dtype)[mask]
        else:
            mean = (norm["running_mean"] - shift.reshape(-1)).to(bn.running_mean.dtype)
            bn.running_mean[mask] = mean[mask]


def _split(places: Places, first: int, fit: Gram, tried: Gram | None):
    """(where to, positions) of the pictures to be solved on and of those that try the ridges.

    Args:
        first: how many pictures there were before this batch.
    """
    if tried is None:
        return [(fit, places)]
    out = (places.picture + int(first)) % LEFT_OUT == LEFT_OUT - 1
    parts = [(fit, places.subset(~out)), (tried, places.subset(out))]
    return [(into, some) for into, some in parts if len(some.x)]


def _grouped(conv) -> Tensor:
    """The kernels as float64 (groups, unfolded inputs, filters of a group)."""
    return conv.weight.double().reshape(conv.groups, conv.out_channels // conv.groups, -1).transpose(1, 2)


def _offset(conv, bn, norm) -> Tensor:
    """What a convolution adds to F W where the norm before the cut takes it: (groups, filters of one)."""
    offset = conv.bias.double() if bn is None else norm["running_mean"] - bn.running_mean.double()
    return offset.view(conv.groups, -1)


def _stored_offset(bn, norm, shift: Tensor) -> Tensor:
    """An offset as float32 will hold it, in a bias or a running mean."""
    if bn is None:
        return shift.float().double()
    mean = norm["running_mean"].view_as(shift)
    return mean - (mean - shift).to(bn.running_mean.dtype).double()


def _solution(fit: Gram, tried: Gram | None, old: Tensor) -> tuple[Tensor, float | None]:
    """The kernels for the ridge that does best on the positions left out, and that ridge; None: it failed."""
    if tried is None or not tried.count:
        found = _ridge(fit, old, (RIDGE,))
        return (found[RIDGE], RIDGE) if found else (old, None)
    found, scale = _ridge(fit, old, RIDGES), tried.centred()[2] + 1e-30
    worth = {
        ridge: float((tried.errors(new, fit.offsets(new)) / scale).mean()) for ridge, new in found.items()
    }
    best = min(worth, key=worth.get, default=None)
    return (old, None) if best is None else (found[best], best)


def _ridge(gram: Gram, old: Tensor, ridges: tuple[float, ...]) -> dict[float, Tensor]:
    """Ridge -> kernels (groups, unfolded inputs, filters); those for which the matrix can be factored."""
    ff, fy, _ = gram.centred()
    diagonal = ff.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    wanted, found = fy - ff @ old, {}
    for ridge in ridges:
        moved = ff.clone()
        moved.diagonal(dim1=1, dim2=2).add_(ridge * mean + gram.rounding())
        factor, info = torch.linalg.cholesky_ex(moved)
        if not info.any():
            found[ridge] = old + torch.cholesky_solve(wanted, factor)
    return {ridge: new for ridge, new in found.items() if torch.isfinite(new).all()}


def _slope(activation: str, z: Tensor) -> Tensor:
    """The derivative of an activation at z."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        return torch.autograd.grad(layers.activate(activation, z).sum(), z)[0]


def _mean(relative: Tensor, alive: Tensor) -> float:
    return float(relative[alive].mean()) if alive.any() else 0.0
