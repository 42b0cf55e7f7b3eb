"""What a data set is made of, so that no output is put over it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..base import files
from ..base.errors import DarkslimError, RequestError
from .datafile import DataConfig, read_data
from .listing import find_label, read_list


def check_spared(
    writes: Mapping[str, object], reads: Mapping[str, object], data_config, lists: tuple = ()
) -> None:
    """Refuses outputs that are inputs, down to the last picture and label.

    Args:
        writes, reads: flag -> path; None where there is none.
        data_config: the `.data` file, whose lists, names, pictures and labels are inputs too.
        lists: further lists of pictures.

    Raises:
        RequestError: an output is an input, or another output. FileError: it cannot be written.
    """
    files.check_outputs(dict(writes), dict(reads))
    try:
        config = read_data(data_config)
    except DarkslimError:
        return  # whoever reads it in earnest says what is wrong
    named = {f"{data_config}": config.path} | {f"{config.path} ({p})": p for p in config.reads}
    files.check_outputs(dict(writes), named)
    there = {_state(path): (flag, path) for flag, path in writes.items() if path is not None}
    there.pop(None, None)
    if not there:
        return
    for path, kind in _files(config, lists):
        hit = there.get(_state(path))
        if hit is not None:
            flag, output = hit
            raise RequestError(
                flag, f"{output} is a {kind} of the data", "another file: inputs are never overwritten"
            )


def _files(config: DataConfig, lists: tuple) -> Iterator[tuple[str, str]]:
    """Every picture and label of the lists that can be read."""
    for path in dict.fromkeys([config.train, config.valid, config.test, *lists]):
        if path is None:
            continue
        try:
            images = read_list(path)
        except DarkslimError:
            continue
        for image in images:
            yield image, "picture"
            yield find_label(image), "label"


def _state(path) -> tuple[int, int] | None:
    """What tells a file from others; None where there is none."""
    try:
        info = os.stat(Path(str(path)))
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino
