"""The keys of every section: kind, default and bounds, as Darknet's parser has them.

`SECTIONS` is the one table. `values(section)` reads a section through it; a key that is not in the table is
warned about with the nearest one that is, since Darknet would ignore it in silence.
"""

from __future__ import annotations

import difflib
import math
from typing import Any, Protocol

from ..base.errors import CfgError, short
from .key_kinds import Key, activation, anchors, as_it_is, number, off, one_of, several, whole


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


POSITIVE, TEXT = Key(whole(1)), Key(as_it_is)


def _ignored(*names: str) -> dict[str, Key]:
    """Keys that Darknet knows and that change nothing here."""
    return {name: TEXT for name in names}


def _refused(*names: str) -> dict[str, Key]:
    return {name: Key(off, 0) for name in names}


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
    "width": Key(whole(1), required=True),
    "height": Key(whole(1), required=True),
    "channels": Key(whole(1), required=True),
    "batch": Key(whole(1), 1),
    "subdivisions": Key(whole(1), 1),
    "learning_rate": Key(number(0), 0.001),
    "momentum": Key(number(0, 0.9999), 0.9),
    "decay": Key(number(0), 0.0001),
    "burn_in": Key(whole(0), 0),
    "max_batches": Key(whole(0), 0),
    "power": Key(number(), 4.0),
    "policy": Key(
        one_of("constant", "steps", "step", "sgdr", "poly", "exp", "sig", "random", "inv"), "constant"
    ),
    "steps": Key(several(whole()), ()),
    "scales": Key(several(number()), ()),
    "hue": Key(number(0), 0.0),
    "saturation": Key(number(1e-3), 1.0),
    "exposure": Key(number(1e-3), 1.0),
    "angle": Key(number(), 0.0),
    "flip": Key(whole(), 1),
    "letter_box": Key(whole(), 0),
    "mosaic": Key(whole(), 0),
    "label_smooth_eps": Key(number(0, 1), 0.0),
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
    "classes": Key(whole(1), 20),
    "num": Key(whole(1), 1),
    "max": Key(whole(1), 200),
    "anchors": Key(anchors, required=True),
    "jitter": Key(number(0, 1), 0.2),
    "random": Key(number(0), 0.0),
}

SECTIONS: dict[str, dict[str, Key]] = {
    "net": NET,
    "convolutional": {
        "filters": Key(whole(1), 1),
        "size": Key(whole(1), 1),
        "stride": Key(whole(1), 1),
        "stride_x": POSITIVE,
        "stride_y": POSITIVE,
        "pad": Key(whole(), 0),
        "padding": Key(whole(0), 0),
        "groups": Key(whole(1), 1),
        "dilation": Key(whole(1), 1),
        "batch_normalize": Key(whole(), 0),
        "activation": Key(activation, "logistic"),
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
        "stride": Key(whole(1), 1),
        "stride_x": POSITIVE,
        "stride_y": POSITIVE,
        "size": POSITIVE,
        "padding": Key(whole(0)),
        **_refused("maxpool_depth", "antialiasing"),
        **_ignored("out_channels"),
        **COMMON,
    },
    "avgpool": {**COMMON},
    "upsample": {"stride": Key(whole(1), 2), "scale": Key(number(), 1.0), **COMMON},
    "route": {
        "layers": Key(several(whole()), required=True),
        "groups": Key(whole(1), 1),
        "group_id": Key(whole(0), 0),
        **COMMON,
    },
    "shortcut": {
        "from": Key(several(whole()), required=True),
        "activation": Key(activation, "linear"),
        "weights_type": Key(one_of("none", "per_feature", "per_layer", "per_channel"), "none"),
        "weights_normalization": Key(one_of("none", "relu", "avg_relu", "softmax"), "none"),
        **COMMON,
    },
    "sam": {"from": Key(whole(), required=True), "activation": Key(activation, "linear"), **COMMON},
    "scale_channels": {
        "from": Key(whole(), required=True),
        "activation": Key(activation, "linear"),
        **_refused("scale_wh"),
        **COMMON,
    },
    "dropout": {
        "probability": Key(number(0, 1), 0.2),
        **_refused("dropblock"),
        **_ignored("dropblock_size_rel", "dropblock_size_abs"),
        **COMMON,
    },
    "reorg": {"stride": Key(whole(1), 1), **_refused("reverse"), **COMMON},
    "reorg3d": {"stride": Key(whole(1), 1), **_refused("reverse"), **COMMON},
    "yolo": {
        **HEAD,
        "mask": Key(several(whole())),
        "ignore_thresh": Key(number(0), 0.5),
        "truth_thresh": Key(number(0), 1.0),
        "iou_thresh": Key(number(0), 1.0),
        "iou_loss": Key(one_of("mse", "iou", "giou", "diou", "ciou"), "mse"),
        "iou_thresh_kind": Key(one_of("iou", "giou", "diou", "ciou"), "iou"),
        "iou_normalizer": Key(number(0), 0.75),
        "obj_normalizer": Key(number(0), 1.0),
        "cls_normalizer": Key(number(0), 1.0),
        "delta_normalizer": Key(number(0), 1.0),
        "scale_x_y": Key(number(0), 1.0),
        "new_coords": Key(whole(0, 1), 0),
        "max_delta": Key(number(0), math.inf),
        "nms_kind": Key(one_of("default", "greedynms", "diounms", "cornersnms"), "default"),
        "beta_nms": Key(number(0), 0.6),
        "label_smooth_eps": Key(number(0, 1), 0.0),
        "objectness_smooth": Key(whole(), 0),
        "focal_loss": Key(whole(), 0),
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
        "coords": Key(whole(4, 4), 4),
        "softmax": Key(whole(), 0),
        "thresh": Key(number(0), 0.5),
        "bias_match": Key(whole(), 0),
        "rescore": Key(whole(), 0),
        "object_scale": Key(number(), 1.0),
        "noobject_scale": Key(number(), 1.0),
        "class_scale": Key(number(), 1.0),
        "coord_scale": Key(number(), 1.0),
        "absolute": Key(whole(), 0),
        **_refused("background", "mask_scale"),
        "tree": Key(off),
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
