"""Networks of a few layers, put together from strings, for answers that are worked out by hand."""

from __future__ import annotations

import warnings

import torch

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet


def conv(filters: int, size: int = 1, activation: str = "linear", bn: int = 1, **keys) -> str:
    """A convolution, padded."""
    more = "".join(f"{key}={value}\n" for key, value in keys.items())
    return (
        f"[convolutional]\nbatch_normalize={bn}\nfilters={filters}\nsize={size}\nstride=1\npad=1\n"
        f"{more}activation={activation}\n"
    )


def section(kind: str, **keys) -> str:
    """Any other section; `from_` is `from`."""
    return f"[{kind}]\n" + "".join(f"{key.rstrip('_')}={value}\n" for key, value in keys.items())


YOLO = section("yolo", mask="0,1", anchors="4,5,10,12", classes=1, num=2)
HEAD = conv(12, bn=0) + YOLO


def build(
    *sections: str, side: int = 16, net: str = "", gammas: dict[int, list[float]] | None = None
) -> Darknet:
    """The network in eval mode, with gammas by layer where they are given; ends in a head of one class and
    two anchors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Darknet(
            parse_cfg(
                f"[net]\nwidth={side}\nheight={side}\nchannels=3\n{net}" + "".join(sections) + HEAD, "net.cfg"
            )
        ).eval()
    with torch.no_grad():
        for layer, values in (gammas or {}).items():
            model.batch_norms()[layer].weight.copy_(torch.tensor(values))
    return model
