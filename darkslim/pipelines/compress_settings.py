"""The settings of the jobs of compress.py."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.options import Options, choice, count, fraction, option, switch, text
from ..compression.magnitude import PATTERN, SCOPES
from ..network.entropy import CODERS
from .settings import Common, Optimization, Thresholds

SCORES = ("size", "error")  # of a weight
LAYERS = ("conv", "depthwise", "head")  # kinds of layers that may have bits of their own
BITS = 5


def bits(value) -> dict[str, int]:
    """`5`, or `conv=5,head=8`: bits of a code for each kind of layer; the others have BITS."""
    if isinstance(value, dict):
        found = dict(value)
    elif str(value).isdigit():
        found = dict.fromkeys(LAYERS, int(value))
    else:
        found = {}
        for part in str(value).split(","):
            name, _, number = part.partition("=")
            if name.strip() not in LAYERS or not number.strip().isdigit():
                raise ValueError(f"{part!r} is none of " + ", ".join(f"{kind}=BITS" for kind in LAYERS))
            found[name.strip()] = int(number)
    for name, number in found.items():
        if name not in LAYERS or not 1 <= number <= 8:
            raise ValueError(f"{name}={number} is outside 1 to 8")
    return {**dict.fromkeys(LAYERS, BITS), **found}


@dataclass(frozen=True)
class Compressing(Thresholds, Common):
    """What the jobs on a network share."""

    weights: str = option(
        "checkpoints/yolov3_ckpt.pth",
        text,
        "its weights: a .pth, .weights or packed file",
        metavar="FILE",
        reads=True,
    )
    no_eval: bool = option(False, switch, "do not measure mAP; needs no data set")


@dataclass(frozen=True)
class Reported(Options):
    """A job that can make a page."""

    report: str | None = option(
        None, text, "also write a page to look at into this folder (index.html)", metavar="DIR"
    )


@dataclass(frozen=True)
class PackSettings(Reported, Optimization, Compressing):
    """Settings of `pack`."""

    out: str | None = option(None, text, "the packed file; none: --weights with .packed", metavar="FILE")
    bits: dict | str = option(
        str(BITS), bits, "of a code: 1 to 8, for all layers or as conv=5,head=8,depthwise=8", metavar="BITS"
    )
    coder: str = option("ans", choice(*CODERS), "how codes are written: numeral systems, or Huffman's codes")
    fuse_bn: bool = option(False, switch, "fold batch norms into convolutions first", "--fuse-bn")
    reconstruct: int = option(
        0, count(), "batches of `train` on which each weight's value is chosen so that others make up for it"
    )
    epochs: int = option(0, count(), "train the shared values before they are written; 0: no")
    logdir: str = option("logs", text, "TensorBoard events of that training, one folder a run", metavar="DIR")
    resume: bool = option(False, switch, "go on with the training that --out belongs to; give the same flags")
    figure: str | None = option(None, text, "draw the bytes of every layer into this PNG", metavar="FILE")


@dataclass(frozen=True)
class PackedSettings(Options):
    """Settings of `unpack` and `info`."""

    file: str = option("", text, "a packed network", metavar="FILE", reads=True)
    out: str | None = option(
        None, text, "unpack: where .cfg, .pth and .weights go; none: beside the file", metavar="FILE"
    )


@dataclass(frozen=True)
class Thinning(Reported, Optimization, Compressing):
    """What `sparsify` and `surgery` share."""

    out: str | None = option(
        None,
        text,
        "the sparse weights, .pth with .weights beside; none: --weights with _sparsified or _surgery",
    )
    reconstruct: int = option(
        0, count(), "batches of `train` on which what stays is solved again by least squares", metavar="N"
    )
    logdir: str = option("logs", text, "TensorBoard events, one folder a run", metavar="DIR")
    resume: bool = option(False, switch, "go on with the training that --out belongs to; give the same flags")


@dataclass(frozen=True)
class SparsifySettings(Thinning):
    """Settings of `sparsify`."""

    ratio: float = option(0.3, fraction(), "share of the weights that goes, the smallest")
    score: str | None = option(
        None,
        choice(*SCORES),
        "what makes a weight small: its size, or the error without it after others make up for it, on "
        "--reconstruct batches; none: the error where there are any",
    )
    scope: str | None = option(
        None,
        choice(*SCOPES),
        "the smallest of each layer, or of the whole network; none: network by error, layer by size",
    )
    pattern: str | None = option(
        None, choice(PATTERN), "in place of --ratio: of every four inputs the two largest stay"
    )
    epochs: int = option(
        0,
        count(),
        "train while weights go, gradually, over three quarters of the run; with --reconstruct: train what "
        "stays; 0: do not",
    )


@dataclass(frozen=True)
class SurgerySettings(Thinning):
    """Settings of `surgery`."""

    ratio: float = option(
        0.9, fraction(), "share of each layer's weights that lies below its threshold at the start"
    )
    epochs: int = option(30, count(1), "of training while weights go and come back")
    growth: float = option(
        1e-3, fraction(0, 1e6), "g: masks are renewed with probability (1 + g n)^-p at step n"
    )
    power: float = option(1.0, fraction(0, 100), "p")
