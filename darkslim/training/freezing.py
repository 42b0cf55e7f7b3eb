"""Layers that are not trained: those before a `stopbackward=1` of the cfg, as in Darknet, or the first N."""

from __future__ import annotations

from ..base.errors import RequestError
from ..network.darknet import Darknet


def last_frozen(model: Darknet, first: int) -> int:
    """How many layers, from the first on, are not trained.

    Darknet's backward pass ends before a layer with stopbackward=1: neither it nor what lies before it is
    trained.

    Args:
        first: layers that are asked for beside those of the cfg.

    Raises:
        RequestError: nothing would be left to train.
    """
    stops = [n.index + 1 for n in model.graph.nodes if n.section.get("stopbackward", "0").strip() == "1"]
    frozen = max([first, *stops])
    if frozen > max(model.convolutions(), default=-1):
        raise RequestError(
            "--freeze" if frozen == first else model.graph.nodes[frozen - 1].section.place,
            f"{frozen} frozen layers of {len(model.graph.nodes)}",
            "a convolution behind them",
            "freeze fewer",
        )
    return frozen


def freeze(model: Darknet, layers: int) -> None:
    """Takes the parameters of the first layers out of training. The statistics of their batch norms go on
    following the pictures, as in Darknet.
    """
    for module in model.module_list[:layers]:
        module.requires_grad_(False)
