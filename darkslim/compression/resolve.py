"""The weights that stay, solved again by least squares after others were set to 0 (He 2017, arXiv 1707.06168,
with a support for each filter).

Layer by layer in the order of the graph: what a convolution reads now, F, and what it made before, Y, at
sampled positions of training pictures. The weights W that stay become

    argmin |F W + b - Y|^2 + ridge |W - W_0|^2

within their support, another one for every filter, and the offset b goes into the running mean or the bias. A
filter that would not come nearer to Y stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base.errors import DatasetError
from ..network.darknet import Darknet
from ..network.patches import Gram, draw, unfolded, values
from ..network.walk import MEMORY, Maps, Walk

POSITIONS = 256  # of a picture and layer
RIDGE = 1e-3  # of the mean of the diagonal of F'F
ROUNDS = 24  # of conjugate gradients; 20 left .7% more of the error than 60 on a slim network
ENOUGH = 1e-12  # of the first residual, squared
NARROW = 128  # unfolded inputs up to which matrices of many filters are solved together
SQUARES = 1 << 22  # of their numbers that are held at once
Solver = Callable[[Gram, Tensor, int], Tensor]  # (F and Y, weights now, layer) -> weights


@dataclass(frozen=True)
class Fit:
    """How a convolution came out: |F W + b - Y|^2 over the variance of Y, mean over filters."""

    layer: int
    before: float
    after: float


def resolve(
    dense: Darknet,
    sparse: Darknet,
    batches: Iterable,
    *,
    solve: Solver | None = None,
    positions: int = POSITIONS,
    memory: int = MEMORY,
    seed: int = 0,
    progress: Callable[..., Iterable] = lambda layers, **_: layers,
) -> list[Fit]:
    """Solves the convolutions of `sparse` again, in place, its zeros as they are; `dense` is only read.

    Args:
        solve: how, with weights as (groups, unfolded inputs, filters of a group), float64; none: as above.
        batches: yields (images (B, C, H, W), uint8 or float in 0..1; targets, which are not looked at).

    Raises:
        DatasetError: no pictures, or pictures that give numbers which are not finite.
    """
    pictures = [images for images, _ in batches]
    if not sum(map(len, pictures)):
        raise DatasetError("reconstruction", "no batch of training pictures", "one or more")
    now, was = Walk(sparse, pictures, memory // 2), Walk(dense, pictures, memory // 2)
    before = {name: value.clone() for name, value in sparse.state_dict().items()}
    dense.eval(), sparse.eval()
    solve = solve or (lambda gram, weights, layer: on_support(gram, weights, weights != 0))
    layers, fits = list(sparse.convolutions()), []
    try:
        with torch.no_grad():
            for layer in progress(layers, desc="reconstructing"):
                fits.append(_layer(dense, sparse, layer, now, was, positions, seed, solve))
    except BaseException:
        sparse.load_state_dict(before)
        raise
    return fits


def _layer(dense, sparse, layer: int, now: Walk, was: Walk, positions: int, seed: int, solve) -> Fit:
    conv = sparse.convolutions()[layer]
    outputs, gram = conv.out_channels // conv.groups, gram_of(conv)
    for number in range(len(now.batches)):
        maps = now.before(number, layer)
        source = maps[sparse.graph.nodes[layer].inputs[0]]

        def watch(_: Maps, made: Tensor, source=source, number=number) -> None:
            take(gram, conv, source, made, positions, (seed, layer, number))

        was.through(number, layer, watch)
    weights = by_input(conv.weight, conv.groups)
    bn, was_bn = sparse.batch_norms().get(layer), dense.batch_norms().get(layer)
    offset = conv.bias.double() if bn is None else was_bn.running_mean.double() - bn.running_mean.double()
    offset = offset.view(conv.groups, outputs)
    errors = gram.errors(weights, offset)
    if not torch.isfinite(errors).all():
        raise DatasetError(
            "reconstruction",
            f"layer {layer} makes numbers that are not finite",
            "finite numbers",
            "look at the weights and the pictures",
        )
    solved = solve(gram, weights, layer).to(conv.weight.dtype).double()
    shift = gram.offsets(solved)
    stored = _stored(bn, was_bn, shift)
    after = gram.errors(solved, stored)
    better = (after < errors).reshape(-1)
    kernels = solved.transpose(1, 2).reshape(conv.weight.shape).to(conv.weight.dtype)
    conv.weight[better] = kernels[better]
    if bn is None:
        conv.bias[better] = shift.reshape(-1).to(conv.bias.dtype)[better]
    else:
        mean = (was_bn.running_mean.double() - shift.reshape(-1)).to(bn.running_mean.dtype)
        bn.running_mean[better] = mean[better]
    scale = gram.centred()[2] + 1e-30
    reached = torch.where(better.view_as(errors), after, errors)
    return Fit(layer, float((errors / scale).mean()), float((reached / scale).mean()))


def gram_of(conv: nn.Conv2d) -> Gram:
    """An empty Gram of what a convolution reads and makes."""
    outputs = conv.out_channels // conv.groups
    return Gram(conv.groups, conv.weight[0].numel(), outputs, conv.weight.device)


def take(gram: Gram, conv: nn.Conv2d, source: Tensor, made: Tensor, positions: int, at: tuple) -> None:
    """Takes in what a convolution reads, and what it is to make, at some positions of each picture.

    Args:
        source, made: maps (B, C, H, W) before the convolution and behind it.
        at: numbers that name the batch: the positions are always the same for them.
    """
    places = draw(len(made), tuple(made.shape[2:]), positions, hash(at) % (1 << 63), made.device)
    wanted = values(made, places).view(-1, conv.groups, made.shape[1] // conv.groups).transpose(0, 1)
    gram.add(unfolded(conv, source, places), wanted)


def by_input(kernels: Tensor, groups: int) -> Tensor:
    """Kernels (filters, ...) as a `Solver` has them: float64 (groups, unfolded inputs, filters of one)."""
    return kernels.double().reshape(groups, len(kernels) // groups, -1).transpose(1, 2)


def _stored(bn, was_bn, shift: Tensor) -> Tensor:
    """An offset as float32 will hold it."""
    if bn is None:
        return shift.float().double()
    mean = was_bn.running_mean.double().view_as(shift)
    return mean - (mean - shift).to(bn.running_mean.dtype).double()


def on_support(gram: Gram, old: Tensor, support: Tensor) -> Tensor:
    """argmin |F W - Y|^2 + ridge |W - old|^2 over W that are 0 outside of `support`.

    Filters of few weights are solved by a matrix each, the others all at once: a matrix costs the cube of the
    weights, conjugate gradients cost the square of the inputs in every round.

    Args:
        old, support: (groups, unfolded inputs, filters of a group); `old` is 0 outside.
    """
    ff, fy, _ = gram.centred()
    ridge = RIDGE * ff.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + gram.rounding()
    found, width = torch.where(support, old, 0.0), ff.shape[1]
    few = _few(support.sum(1), width)
    if width <= NARROW:
        places = few.nonzero()
        for some in places.split(max(1, SQUARES // width**2)):
            group, filter_ = some.unbind(1)
            args = ff[group], fy[group, :, filter_], found[group, :, filter_], support[group, :, filter_]
            found[group, :, filter_] = _squares(*args, ridge[group])
    else:
        for group, filter_ in few.nonzero().tolist():
            inputs = support[group, :, filter_].nonzero()[:, 0]
            square, at = ff[group][inputs[:, None], inputs], (group, inputs, filter_)
            found[at] = _squares(square[None], fy[at][None], found[at][None], None, ridge[group])[0]
    for group in (~few).any(1).nonzero()[:, 0].tolist():
        many = (~few[group]).nonzero()[:, 0]
        args = ff[group], fy[group][:, many], found[group][:, many], support[group][:, many], ridge[group]
        found[group, :, many] = _conjugate_gradients(*args)
    return found


def _squares(ff: Tensor, fy: Tensor, old: Tensor, support: Tensor | None, ridge: Tensor) -> Tensor:
    """n filters, each by a matrix of its own.

    Args:
        ff: (n, inputs, inputs). fy, old: (n, inputs). support: bool (n, inputs); none: all. ridge: (n, 1).
    """
    missed = fy - (ff @ old[..., None])[..., 0]
    if support is not None:
        ff, missed = ff * (support[:, :, None] & support[:, None, :]), missed * support
        ridge = torch.where(support, ridge, 1.0)
    ff.diagonal(dim1=1, dim2=2).add_(ridge)
    return old + torch.cholesky_solve(missed[..., None], torch.linalg.cholesky(ff))[..., 0]


def _few(number: Tensor, width: int) -> Tensor:
    """Which filters cost less by a matrix of their own: by how many weights each has of `width`. On a GPU
    none, since many small matrices are slower there than a few large ones.
    """
    return (number.double() ** 3 / 3 < 2 * ROUNDS * width**2) & (number.device.type == "cpu")


def _conjugate_gradients(ff: Tensor, fy: Tensor, old: Tensor, support: Tensor, ridge: Tensor) -> Tensor:
    """Those filters of one group together, each within its support; with the diagonal as preconditioner
    (Hestenes and Stiefel 1952).

    Args:
        ff: (inputs, inputs). fy, old, support: (inputs, filters).
    """
    inverse = support / (ff.diagonal() + ridge)[:, None]
    found = old.clone()
    residual = (fy - ff @ found) * support
    step = inverse * residual
    direction, product = step.clone(), (residual * step).sum(0)
    first = product.clone()
    for _ in range(ROUNDS):
        moved = (ff @ direction + ridge * direction) * support
        length = product / (direction * moved).sum(0).clamp(min=1e-300)
        found += length * direction
        residual -= length * moved
        step = inverse * residual
        before, product = product, (residual * step).sum(0)
        if (product <= ENOUGH * first).all():
            break
        direction = step + product / before.clamp(min=1e-300) * direction
    return found
