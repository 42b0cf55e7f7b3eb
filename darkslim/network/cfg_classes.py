"""A cfg for another data set: its number of classes and its anchors, in every head and in what feeds them."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.errors import CfgError
from . import schema
from .cfg import Cfg, Section


def for_data(cfg: Cfg, classes: int, anchors: Sequence[Sequence[float]] | None = None) -> Cfg:
    """A copy of a cfg for `classes` classes.

    Every `[yolo]` gets `classes=`, and the convolution before it `filters=`: its anchors x (5 + classes).

    Args:
        anchors: (width, height) in pixels of the network input for every head, smallest first; None: as they
            are.

    Raises:
        CfgError: no `[yolo]`; a head with no convolution before it; another number of anchors than heads use.
    """
    twin = cfg.copy()
    heads = [number for number, layer in enumerate(twin.layers) if layer.type == "yolo"]
    if not heads:
        raise CfgError(cfg.path, "has no [yolo]", "a detector with [yolo] heads", "take another cfg")
    for number in heads:
        head = twin.layers[number]
        before = twin.layers[number - 1] if number else None
        if before is None or before.type != "convolutional":
            found = f"[{before.type}]" if before is not None else "nothing"
            raise CfgError(head.place, f"has {found} before it", "the [convolutional] whose filters it reads")
        opts = schema.values(head)
        if anchors is not None:
            _anchors(head, opts, anchors)
        masks = len(opts["mask"]) if opts["mask"] else opts["num"]
        head.set("classes", classes)
        before.set("filters", masks * (5 + classes))
    return twin


def _anchors(head: Section, opts: dict, anchors: Sequence[Sequence[float]]) -> None:
    needed = max([opts["num"], *(m + 1 for m in opts["mask"] or ())])
    if len(anchors) != needed:
        raise CfgError(
            head.place_of("num"),
            f"{needed} anchors are in use",
            f"{len(anchors)}, as were found",
            f"ask for --anchors {needed}",
        )
    head.set("anchors", ",".join(f"{w:g},{h:g}" for w, h in anchors))
    head.set("num", needed)
