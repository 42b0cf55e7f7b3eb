"""The keys of every section: kind, default and bounds, as Darknet's parser has them.

`SECTIONS` is the one table. `values(section)` reads a section through it; a key that is not in the table is
warned about with the nearest one that is, since Darknet would ignore it in silence.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..base.errors import CfgError, short


class Section(Protocol):
    """What `values` sees of a section; where its lines stand, and in which file, is no business of this
    table.
    """

    type: str

    @property
    def place(self) -> str: ...

    @property
    def options(self) -> dict[str, str]: ...

    def place_of(self, key: str | None) -> str: ...


ACTIVATIONS = (
    "linear",
    "leaky",
    "relu",
    "relu6",
    "logistic",
    "loggy",
    "tanh",
    "hardtan",
    "elu",
    "selu",
    "gelu",
    "swish",
    "mish",
)
OTHER_NAMES = {"silu": "swish"}  # names that other programs give them
OTHER_FUNCTIONS = (  # what is no misspelling of one of ours
    "h_swish hswish hard_swish hardswish hard_mish hardmish h_sigmoid hsigmoid hard_sigmoid hardsigmoid "
    "normalize_channels normalize_channels_softmax normalize_channels_softmax_maxval relie ramp plse stair "
    "lhtan revleaky prelu rrelu celu softplus softsign glu silu6"
).split()


@dataclass(frozen=True)
class Key:
    """How one key is read: `read(text)` raises ValueError(what was expected)."""

    read: Callable[[str], Any]
    default: Any = None
    required: bool = False


_DIGITS = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII
)  # Python's float() also takes 1_2, nan and other scripts
MAX_VALUES = 1024


def _parse(text: str) -> float:
    if not _DIGITS.fullmatch(text):
        raise ValueError
    return float(text)


def _whole(low: int | None = None, high: int = 2**31 - 1):
    expected = "a whole number" + (f" of at least {low}" if low is not None else "")

    def read(text: str) -> int:
        try:
            number = _parse(text)
        except ValueError:
            raise ValueError(expected) from None
        if "e" in text.lower() or not math.isfinite(number) or number != int(number) or abs(number) > 2**53:
            raise ValueError(expected)
        if (low is not None and number < low) or number > high:
            raise ValueError(expected + (f" and at most {high}" if number > high else ""))
        return int(number)

    return read


def _number(low: float = -math.inf, high: float = math.inf):
    expected = (
        "a finite number"
        + (f" from {low:g}" if low > -math.inf else "")
        + (f" to {high:g}" if high < math.inf else "")
    )

    def read(text: str) -> float:
        try:
            number = _parse(text)
        except ValueError:
            raise ValueError(expected) from None
        if not math.isfinite(number) or not low <= number <= high:
            raise ValueError(expected)
        return number

    return read


def _several(one: Callable[[str], Any], least: int = 1):
    def read(text: str) -> tuple:
        parts = text.split(",")
        while parts and parts[-1] == "":  # Darknet counts commas, so a trailing one is harmless
            parts.pop()
        if len(parts) < least:
            raise ValueError(f"at least {least} values separated by commas")
        if len(parts) > MAX_VALUES:
            raise ValueError(f"at most {MAX_VALUES} values")
        return tuple(one(part) for part in parts)

    return read


def _one_of(*names: str):
    def read(text: str) -> str:
        if text not in names:
            near = difflib.get_close_matches(text, names, 1)
            raise ValueError("one of " + ", ".join(names) + (f" (did you mean {near[0]}?)" if near else ""))
        return text

    return read


def _activation(text: str) -> str:
    text = OTHER_NAMES.get(text, text)
    if text in OTHER_FUNCTIONS:
        raise ValueError("one of " + ", ".join(ACTIVATIONS) + "; this function is not supported")
    return _one_of(*ACTIVATIONS)(text)


def _anchors(text: str) -> tuple[tuple[float, float], ...]:
    numbers = _several(_number())(text)
    if len(numbers) % 2:
        raise ValueError(f"pairs of width,height ({len(numbers)} numbers are no pairs)")
    if min(numbers) <= 0:
        raise ValueError("widths and heights above zero")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _unsupported(text: str):
    """A key of Darknet that changes the arithmetic in a way that is not computed here: refused unless it is
    off.
    """
    try:
        off = float(text) == 0
    except ValueError:
        off = False
    if not off:
        raise ValueError("0: this variant is not supported")
    return 0


def _text(text: str) -> str:
    return text


INT, POSITIVE, NUMBER, TEXT = Key(_whole()), Key(_whole(1)), Key(_number()), Key(_text)


def _k(read, default=None, required=False) -> Key:
    return Key(read, default, required)


def _ignored(*names: str) -> dict[str, Key]:
    """Keys that Darknet knows and that change nothing here."""
    return {name: TEXT for name in names}


def _refused(*names: str) -> dict[str, Key]:
    return {name: Key(_unsupported, 0) for name in names}


ACTIVATION = _activation
COMMON = _ignored(
    "clip",
    "onlyforward",
    "dont_update",
    "burnin_update",
    "stopbackward",
    "train_only_bn",
    "dontload",
    "dontloadscales",
    "learning_rate",
    "truth",
    "smooth",
    "dontsave",
)

NET = {
    "width": _k(_whole(1), required=True),
    "height": _k(_whole(1), required=True),
    "channels": _k(_whole(1), required=True),
    "batch": _k(_whole(1), 1),
    "subdivisions": _k(_whole(1), 1),
    "learning_rate": _k(_number(0), 0.001),
    "momentum": _k(_number(0, 0.9999), 0.9),
    "decay": _k(_number(0), 0.0001),
    "burn_in": _k(_whole(0), 0),
    "max_batches": _k(_whole(0), 0),
    "power": _k(_number(), 4.0),
    "policy": _k(
        _one_of("constant", "steps", "step", "sgdr", "poly", "exp", "sig", "random", "inv"), "constant"
    ),
    "steps": _k(_several(_whole()), ()),
    "scales": _k(_several(_number()), ()),
    "hue": _k(_number(0), 0.0),
    "saturation": _k(_number(1e-3), 1.0),
    "exposure": _k(_number(1e-3), 1.0),
    "angle": _k(_number(), 0.0),
    "flip": _k(_whole(), 1),
    "letter_box": _k(_whole(), 0),
    "mosaic": _k(_whole(), 0),
    "label_smooth_eps": _k(_number(0, 1), 0.0),
    **_ignored(
        "inputs",
        "adam",
        "B1",
        "B2",
        "eps",
        "max_crop",
        "min_crop",
        "blur",
        "gaussian_noise",
        "mixup",
        "cutmix",
        "mosaic_bound",
        "contrastive",
        "aspect",
        "resize_step",
        "attention",
        "adversarial_lr",
        "max_chart_loss",
        "time_steps",
        "track",
        "augment_speed",
        "init_sequential_subdivisions",
        "sequential_subdivisions",
        "try_fix_nan",
        "weights_reject_freq",
        "equidistant_point",
        "badlabels_rejection_percentage",
        "num_sigmas_reject_badlabels",
        "ema_alpha",
        "loss_scale",
        "dynamic_minibatch",
        "optimized_memory",
        "workspace_size_limit_MB",
        "gamma",
        "step",
        "scale",
        "seq_scales",
        "learning_rate_min",
        "batches_per_cycle",
        "batches_cycle_mult",
        "sgdr_cycle",
        "sgdr_mult",
        "unsupervised",
        "contrastive_jit_flip",
        "contrastive_color",
        "use_cuda_graph",
        "show_receptive_field",
        "cudnn_half",
    ),
}

HEAD = {
    "classes": _k(_whole(1), 20),
    "num": _k(_whole(1), 1),
    "max": _k(_whole(1), 200),
    "anchors": _k(_anchors, required=True),
    "jitter": _k(_number(0, 1), 0.2),
    "random": _k(_number(0), 0.0),
}

SECTIONS: dict[str, dict[str, Key]] = {
    "net": NET,
    "convolutional": {
        "filters": _k(_whole(1), 1),
        "size": _k(_whole(1), 1),
        "stride": _k(_whole(1), 1),
        "stride_x": POSITIVE,
        "stride_y": POSITIVE,
        "pad": _k(_whole(), 0),
        "padding": _k(_whole(0), 0),
        "groups": _k(_whole(1), 1),
        "dilation": _k(_whole(1), 1),
        "batch_normalize": _k(_whole(), 0),
        "activation": _k(ACTIVATION, "logistic"),
        **COMMON,
        **_refused(
            "antialiasing",
            "assisted_excitation",
            "binary",
            "xnor",
            "share_index",
            "deform",
            "sway",
            "rotate",
            "stretch",
            "stretch_sway",
            "reverse",
            "coordconv",
            "cbn",
        ),
        **_ignored("bin_output", "use_bin_output", "flipped", "dot", "grad_centr", "angle"),
    },
    "maxpool": {
        "stride": _k(_whole(1), 1),
        "stride_x": POSITIVE,
        "stride_y": POSITIVE,
        "size": POSITIVE,
        "padding": Key(_whole(0)),
        **_refused("maxpool_depth", "antialiasing"),
        **_ignored("out_channels"),
        **COMMON,
    },
    "avgpool": {**COMMON},
    "upsample": {"stride": _k(_whole(1), 2), "scale": _k(_number(), 1.0), **COMMON},
    "route": {
        "layers": _k(_several(_whole()), required=True),
        "groups": _k(_whole(1), 1),
        "group_id": _k(_whole(0), 0),
        **COMMON,
    },
    "shortcut": {
        "from": _k(_several(_whole()), required=True),
        "activation": _k(ACTIVATION, "linear"),
        "weights_type": _k(_one_of("none", "per_feature", "per_layer", "per_channel"), "none"),
        "weights_normalization": _k(_one_of("none", "relu", "avg_relu", "softmax"), "none"),
        **COMMON,
    },
    "sam": {"from": _k(_whole(), required=True), "activation": _k(ACTIVATION, "linear"), **COMMON},
    "scale_channels": {
        "from": _k(_whole(), required=True),
        "activation": _k(ACTIVATION, "linear"),
        **_refused("scale_wh"),
        **COMMON,
    },
    "dropout": {
        "probability": _k(_number(0, 1), 0.2),
        **_refused("dropblock"),
        **_ignored("dropblock_size_rel", "dropblock_size_abs"),
        **COMMON,
    },
    "reorg": {"stride": _k(_whole(1), 1), **_refused("reverse"), **COMMON},
    "reorg3d": {"stride": _k(_whole(1), 1), **_refused("reverse"), **COMMON},
    "yolo": {
        **HEAD,
        "mask": _k(_several(_whole())),
        "ignore_thresh": _k(_number(0), 0.5),
        "truth_thresh": _k(_number(0), 1.0),
        "iou_thresh": _k(_number(0), 1.0),
        "iou_loss": _k(_one_of("mse", "iou", "giou", "diou", "ciou"), "mse"),
        "iou_thresh_kind": _k(_one_of("iou", "giou", "diou", "ciou"), "iou"),
        "iou_normalizer": _k(_number(0), 0.75),
        "obj_normalizer": _k(_number(0), 1.0),
        "cls_normalizer": _k(_number(0), 1.0),
        "delta_normalizer": _k(_number(0), 1.0),
        "scale_x_y": _k(_number(0), 1.0),
        "new_coords": _k(_whole(0, 1), 0),
        "max_delta": _k(_number(0), math.inf),
        "nms_kind": _k(_one_of("default", "greedynms", "diounms", "cornersnms"), "default"),
        "beta_nms": _k(_number(0), 0.6),
        "label_smooth_eps": _k(_number(0, 1), 0.0),
        "objectness_smooth": _k(_whole(), 0),
        "focal_loss": _k(_whole(), 0),
        **_ignored(
            "resize",
            "map",
            "counters_per_class",
            "track_history_size",
            "sim_thresh",
            "dets_for_track",
            "dets_for_show",
            "track_ciou_norm",
            "embedding_layer",
            "show_details",
            "detection_gate",
        ),
        **COMMON,
    },
    "region": {
        **HEAD,
        "coords": _k(_whole(4, 4), 4),
        "softmax": _k(_whole(), 0),
        "thresh": _k(_number(0), 0.5),
        "bias_match": _k(_whole(), 0),
        "rescore": _k(_whole(), 0),
        "object_scale": _k(_number(), 1.0),
        "noobject_scale": _k(_number(), 1.0),
        "class_scale": _k(_number(), 1.0),
        "coord_scale": _k(_number(), 1.0),
        "absolute": _k(_whole(), 0),
        **_refused("background", "mask_scale"),
        "tree": Key(_unsupported),
        **_ignored("map", "log", "sqrt", "classfix", "focal_loss"),
        **COMMON,
    },
}

KNOWN_TO_DARKNET = (
    "Gaussian_yolo",
    "connected",
    "local",
    "local_avgpool",
    "softmax",
    "contrastive",
    "cost",
    "crop",
    "detection",
    "deconvolutional",
    "rnn",
    "gru",
    "lstm",
    "conv_lstm",
    "history",
    "crnn",
    "normalization",
    "batchnorm",
    "activation",
    "logistic",
    "l2norm",
    "empty",
    "implicit",
    "iseg",
    "Gaussian",
    "silence",
)


def values(section: Section) -> dict[str, Any]:
    """Every key of the section's type with its typed value, defaults filled in.

    Raises:
        CfgError: an unknown section, a value that cannot be read, a required key that is not there.
    """
    table = SECTIONS.get(section.type)
    if table is None:
        raise CfgError(section.place, *_unknown_section(section.type))
    options = section.options
    found: dict[str, Any] = {}
    for name, key in table.items():
        text = options.get(name)
        if text is None:
            if key.required:
                raise CfgError(section.place, f"{name} is missing", f"{name}= is required here")
            found[name] = key.default
            continue
        try:
            found[name] = key.read(text)
        except ValueError as e:
            raise CfgError(section.place_of(name), f"{name}={short(text)}", f"expected {e}") from None
    return found


def _unknown_section(kind: str) -> tuple[str, str]:
    if kind in KNOWN_TO_DARKNET:
        return f"[{kind}] layers are not supported", "the layers of detectors: " + ", ".join(
            list(SECTIONS)[1:]
        )
    near = difflib.get_close_matches(kind, SECTIONS, 1)
    return (
        f"[{short(kind)}] is no section of Darknet",
        f"did you mean [{near[0]}]?" if near else "one of " + ", ".join(SECTIONS),
    )
