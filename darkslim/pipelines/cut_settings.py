"""The settings of cuts: how much, what, how, and what becomes of the rest."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.options import Options, choice, count, fraction, option, or_word, quantity, several, switch, text
from ..deploy.engines import TIMED
from ..network.channels import STRATEGIES
from ..pruning.importance import SCORES
from ..pruning.plan import FOLDS
from ..pruning.policy import SCORE_NAMES
from .settings import Common, Thresholds

PERCENT = 0.85
AUTO = "auto"  # of scores
CALIBRATION = 8  # batches, for a sweep and for scores that look at gradients
AMOUNT = "how much to cut (one of these)"
REPAIR = "what repairs the network after the cut (one of these)"
UNITS, TIMES = {"k": 1e3, "M": 1e6, "G": 1e9}, {"ms": 1e-3, "s": 1}


@dataclass(frozen=True)
class Targets(Options):
    """What a cut is to end with."""

    target_params: tuple[float, bool] | None = option(
        None,
        quantity(**UNITS),
        "parameters to end with: a share of those now (0.25), or their number (2.5M)",
        "--target-params",
        metavar="R",
        group=AMOUNT,
    )
    target_macs: tuple[float, bool] | None = option(
        None,
        quantity(**UNITS),
        "multiply-adds of one picture to end with: a share, or their number (3G)",
        "--target-macs",
        metavar="R",
        group=AMOUNT,
    )
    target_latency: tuple[float, bool] | None = option(
        None,
        quantity(**TIMES),
        "time of one picture to end with: a share, or a time (20ms); measured on this machine",
        "--target-latency",
        metavar="R",
        group=AMOUNT,
    )

    @property
    def target(self) -> tuple[str, float, bool] | None:
        """(kind, value, absolute) of the one that was asked for."""
        for kind in ("params", "macs", "latency"):
            wanted = getattr(self, f"target_{kind}")
            if wanted is not None:
                return kind, *wanted
        return None


@dataclass(frozen=True)
class Cutting(Options):
    """What is cut, and how."""

    strategy: str = option(
        "normal",
        choice(*STRATEGIES),
        "normal: what a single convolution makes; the others also what shortcuts join, as one, scored "
        "by its first member (shortcut), its best (slim), or all of them (group)",
    )
    score: str = option(
        "gamma",
        choice(*SCORE_NAMES, AUTO),
        "how much a channel matters: " + ", ".join(SCORES) + "; of several that go together the mean, "
        "or with -max or -l2 behind the name another; auto: several are tried, cut and repaired (by "
        f"--reconstruct {CALIBRATION} unless told otherwise), the best on the pictures that choose is "
        "taken, chance aside",
        metavar="NAME",
    )
    layer_keep: float = option(0.01, fraction(), "share of its channels that every layer keeps, at least one")
    knapsack: bool = option(
        False,
        switch,
        "with a target: channels go by their score for each MAC, parameter or second that they cost, in "
        "blocks of --round_to",
    )
    round_to: int | str = option(
        1,
        or_word(count(1, 4096), AUTO),
        "make widths multiples of this; auto: of what makes --engine quickest, found by timing",
    )
    engine: str = option(
        "torch",
        choice(*TIMED),
        "what runs the network whose latency is told, and meant by --target-latency; in 8 bits: its time, "
        "with mAP that of float32 until export.py --int8 makes the file",
    )
    fold: str = option(
        "exact",
        choice(*FOLDS, AUTO),
        "what becomes of the constants that cut channels leave: exact at borders too, exact in "
        "the interior, dropped; auto: exact or interior, whichever keeps more mAP after the repair",
    )
    report: str | None = option(
        None, text, "also write a page to look at into this folder (index.html)", metavar="DIR"
    )
    latency_table: str | None = option(
        None, text, "where measured layer times are kept; none: the user's cache", metavar="FILE"
    )
    choose_on: str | None = option(
        None,
        text,
        "list of the pictures whose mAP chooses; none: `valid` where the data name a `test` list beside it, "
        "else a part of "
        "`train`, drawn by the seed",
        metavar="LIST",
        reads=True,
    )


@dataclass(frozen=True)
class PruneSettings(Targets, Cutting, Thresholds, Common):
    """Settings of `prune`."""

    model: str = option(
        "checkpoints/yolov3_ckpt.pth",
        text,
        "its weights: a .pth or .weights file",
        metavar="CKPT",
        reads=True,
    )
    percent: float | str | None = option(
        None,
        or_word(fraction(), "auto"),
        f"share of the prunable channels to cut; none: {PERCENT}; auto: those before the valley of the "
        "scores, where polarization or gates have parted them",
        group=AMOUNT,
    )
    max_map_drop: float | None = option(
        None,
        fraction(),
        "cut as much as costs at most this mAP before finetuning, on the pictures of --choose_on",
        "--max-map-drop",
        metavar="D",
        group=AMOUNT,
    )
    sweep: tuple[float, ...] | None = option(
        None,
        several(fraction()),
        "try ratios (none given: 0.1 to 0.9), show mAP and sizes, and write no network",
        "--sweep",
        metavar="RATIO",
        group=AMOUNT,
    )
    sensitivity: tuple[float, ...] | None = option(
        None,
        several(fraction()),
        "cut every layer alone by shares of its channels (none given: 0.125 to 0.9), show how much the loss "
        "on training pictures rises, and write no network",
        "--sensitivity",
        metavar="SHARE",
        group=AMOUNT,
    )
    max_layer_loss: float | None = option(
        None,
        fraction(0, 1e6),
        "no layer is cut further than raises that loss by this share when it is cut alone (0.5: by half)",
        "--max-layer-loss",
        metavar="D",
    )
    shortcuts: int = option(0, count(), "residual blocks to remove first, the weakest ones", metavar="N")
    recalibrate: int | None = option(
        None,
        count(),
        f"batches of `train` to re-estimate the batch norms on; none: 0, with --sweep {CALIBRATION}",
        metavar="N",
        group=REPAIR,
    )
    reconstruct: int = option(
        0,
        count(),
        "batches of `train` on which what stays is solved again by least squares, so that layers make what "
        "they made before the cut; 0: no",
        metavar="N",
        group=REPAIR,
    )
    fuse_bn: bool = option(
        False,
        switch,
        "write batch norms folded into convolutions: for deployment (OpenCV has another epsilon), "
        "not for finetuning",
        "--fuse-bn",
    )
    no_eval: bool = option(False, switch, "do not measure mAP; needs no data set")
    cfg_out: str | None = option(
        None, text, "the new cfg; none: config/prune_NAME.cfg after --model_def", metavar="FILE"
    )
    model_out: str | None = option(
        None,
        text,
        "the new weights; a .weights file and the picture of the network (.png) go beside it; none: "
        "checkpoints/prune_yolov3_ckpt.pth, or after the cfg where that was pruned before",
        metavar="FILE",
    )
    sweep_out: str | None = option(
        None,
        text,
        "NAME.csv and NAME.png of --sweep or --sensitivity; none: checkpoints/sweep_CFG, or sensitivity_CFG",
        metavar="NAME",
    )
    batch_size: int = option(16, count(1), "images at once when measuring mAP and recalibrating")
