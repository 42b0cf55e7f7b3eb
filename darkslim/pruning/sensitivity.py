"""How much the heads feel an error in what a convolution makes: the diagonal of Gauss and Newton's matrix."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

AT_ONCE = 2  # pictures in one backward pass, so that memory stays small


def sensitivity(model, pictures: Iterable[Tensor], draws: int = 2, seed: int = 0) -> dict[int, Tensor]:
    """Convolution -> float64 (filters,): the expected change of the raw head maps, squared and added up over
    all their values, for an error of variance 1 in that filter at every position, one picture.

    Each channel of a head is divided by its spread over the pictures, so that boxes, objectness and classes
    weigh alike. The sum over the values of the heads is estimated by random signs (Hutchinson 1989): with v
    of independent signs, E (J'v)^2 is the diagonal of J'J.

    Args:
        model: in eval mode. pictures: float (C, H, W) each, on its device. draws: of signs for each picture.
    """
    found = {
        layer: torch.zeros(conv.out_channels, dtype=torch.float64, device=conv.weight.device)
        for layer, conv in model.convolutions().items()
    }
    pictures, handles = list(pictures), []
    spread = _spreads(model, pictures)
    for layer, conv in model.convolutions().items():

        def watch(module, inputs, output, layer=layer):
            def add(gradient: Tensor, layer=layer) -> None:
                found[layer].add_(gradient.double().square().sum((0, 2, 3)))

            output.register_hook(add)

        handles.append(conv.register_forward_hook(watch))
    g = torch.Generator().manual_seed(seed)
    try:
        with torch.enable_grad():
            for first in range(0, len(pictures), AT_ONCE):
                images = torch.stack(pictures[first : first + AT_ONCE]).requires_grad_()
                maps = model.raw_heads(images)
                for number in range(draws):
                    signs = [torch.randint(2, m.shape, generator=g).to(m) * 2 - 1 for m in maps]
                    total = sum((m * v / s).sum() for m, v, s in zip(maps, signs, spread, strict=True))
                    torch.autograd.grad(total, images, retain_graph=number < draws - 1)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: value / (draws * len(pictures)) for layer, value in found.items()}


def _spreads(model, pictures: list[Tensor]) -> list[Tensor]:
    """Standard deviation of each channel of each head (1, masks, 1, 1, 5 + classes)."""
    sums = None
    with torch.no_grad():
        for first in range(0, len(pictures), AT_ONCE):
            maps = model.raw_heads(torch.stack(pictures[first : first + AT_ONCE]))
            one = [
                torch.stack((m.double().mean((0, 2, 3)), m.double().square().mean((0, 2, 3)))) * len(m)
                for m in maps
            ]
            sums = one if sums is None else [a + b for a, b in zip(sums, one, strict=True)]
    spreads = []
    for total in sums:
        mean, square = total / len(pictures)
        deviation = (square - mean**2).clamp(min=0).sqrt()
        spreads.append(deviation.clamp(min=1e-6).float()[None, :, None, None, :])
    return spreads
