"""Kernels solved again on training pictures: what the jobs of compress.py share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from ..base import devices
from ..compression.resolve import Fit, Solver, resolve
from ..data import datafile
from ..data.loader import make_loader
from ..data.plain import plain_dataset
from ..network.darknet import Darknet
from .compress_settings import Compressing


def resolved(
    settings: Compressing,
    dense: Darknet,
    changed: Darknet,
    progress: Callable[..., Iterable],
    solve: Solver | None = None,
) -> list[Fit]:
    """Solves `changed` again, in place, to make what `dense` makes on --reconstruct batches of `train`."""
    s = settings
    config, device = datafile.read_data(s.data_config), devices.device(s.device)
    dataset = plain_dataset(dense, config, "train", s.img_size, progress, s.resize, **s.reading)
    with make_loader(dataset, s.batch_size, shuffle=True, seed=s.seed) as loader:
        batches = list(islice(loader, s.reconstruct))
    dense.to(device), changed.to(device)
    fits = resolve(dense, changed, batches, solve=solve, seed=s.seed, progress=progress)
    dense.cpu(), changed.cpu()
    return fits
