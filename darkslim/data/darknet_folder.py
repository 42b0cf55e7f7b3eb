"""Data that are in Darknet's form already: a `.data` file, its lists and labels, read for their boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..base.errors import RequestError
from .check import check_dataset
from .convert import Picture, Plan
from .datafile import read_data
from .limits import MAX_PIXELS


def read_darknet(
    path,
    names: list[str] | None = None,
    skip_broken: bool = False,
    progress: Callable | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """The boxes of a `.data` file's lists. The plan is for looking, not for writing.

    Args:
        names: must be None: the file names them.

    Raises:
        DataFileError, DatasetError: as training raises them. RequestError: `names`.
    """
    if names is not None:
        raise RequestError("--names", f"{path} names the classes", remedy="leave it out")
    config, plan = read_data(path), Plan()
    plan.names = config.names
    for key in ("train", "valid", "test"):
        place = getattr(config, key)
        if place is None:
            continue
        how = {"skip_broken": skip_broken, "max_pixels": max_pixels, "save": False, "progress": progress}
        report = check_dataset(place, config.classes, **how)
        plan.lists[key] = list(report.images)
        for i, image in enumerate(report.images):
            size = tuple(int(v) for v in report.sizes[i])
            boxes = report.labels(i).astype(np.float64)
            plan.pictures[image] = Picture(Path(image), Path(image).name, size, boxes)
    return plan
