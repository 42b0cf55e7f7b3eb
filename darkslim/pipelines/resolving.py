"""Kernels solved again on training pictures: what the jobs of compress.py share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from ..base import devices
from ..compression.resolve import Fit, Solver, resolve
from ..compression.saliency import Saliency, saliencies
from ..data import datafile
from ..data.loader import make_loader
from ..data.plain import plain_dataset
from ..network.darknet import Darknet
from ..network.renorm import renormalize
from .compress_settings import Compressing


def batches_of(settings: Compressing, model: Darknet, progress: Callable[..., Iterable]) -> list:
    """--reconstruct batches of `train`, without augmentation."""
    s = settings
    config = datafile.read_data(s.data_config)
    dataset = plain_dataset(model, config, "train", s.img_size, progress, s.resize, **s.reading)
    with make_loader(dataset, s.batch_size, shuffle=True, seed=s.seed) as loader:
        return list(islice(loader, s.reconstruct))


def weighed(settings: Compressing, model: Darknet, batches: list, progress: Callable) -> dict[int, Saliency]:
    """What each weight is worth (compression/saliency.py)."""
    model.to(devices.device(settings.device))
    found = saliencies(model, batches, seed=settings.seed, progress=progress)
    model.cpu()
    return found


def resolved(
    settings: Compressing,
    dense: Darknet,
    changed: Darknet,
    batches: list,
    progress: Callable,
    solve: Solver | None = None,
) -> list[Fit]:
    """Solves `changed` again, in place, to make what `dense` makes of the pictures."""
    device = devices.device(settings.device)
    dense.to(device), changed.to(device)
    fits = resolve(dense, changed, batches, solve=solve, seed=settings.seed, progress=progress)
    dense.cpu(), changed.cpu()
    return fits


def settled(settings: Compressing, model: Darknet, batches: list) -> None:
    """Makes batch norms say what the changed layers before them make, so that `model` can be trained on."""
    model.to(devices.device(settings.device))
    renormalize(model, (images for images, _ in batches))
    model.cpu()
