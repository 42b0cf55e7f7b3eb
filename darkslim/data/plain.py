"""The pictures of a `.data` file as a network sees them at inference: checked, at its input size, without
augmentation.
"""

from __future__ import annotations

from collections.abc import Callable

from ..base.errors import CfgError
from ..network import schema
from ..network.graph import input_size
from .check import check_dataset
from .datafile import DataConfig
from .dataset import ListDataset


def check_classes(model, config: DataConfig) -> None:
    """The cfg must detect as many classes as the data have.

    Raises:
        CfgError: with the head that does not.
    """
    for head in model.heads:
        if head.classes != config.classes:
            raise CfgError(
                model.cfg.layers[head.index].place,
                f"classes={head.classes}",
                f"classes={config.classes} as in {config.path}",
                "use the cfg and the data that belong together",
            )


def plain_dataset(
    model,
    config: DataConfig,
    key: str,
    side: int | None = None,
    progress: Callable | None = None,
    resize: str = "antialias",
    **check,
) -> ListDataset:
    """The list `key` of a `.data` file, all of it looked at. `dataset.report.remember()` keeps what was found
    for the next time.

    Args:
        key: `train` or `valid`.
        side: of a square input in pixels; None: the cfg's size.
        resize: one of resize.RESIZES.
        check: further arguments for `check_dataset`.

    Raises:
        CfgError, RequestError: the classes or the size do not fit the network.
        DatasetError: a picture or label that cannot be used.
    """
    size = input_size(model.graph, side)
    check_classes(model, config)
    report = check_dataset(
        config.list_path(key), config.classes, need_boxes=True, save=False, progress=progress, **check
    )
    letterbox = bool(schema.values(model.cfg.net)["letter_box"])
    return ListDataset(
        report.list_path,
        config.classes,
        size,
        letterbox=letterbox,
        channels=model.cfg.channels,
        report=report,
        resize=resize,
        difficult=config.difficult if key == "valid" else None,
    )
