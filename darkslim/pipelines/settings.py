"""The settings of every job, with their defaults, bounds and one line each: flags, recipes and Python read
the same table.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from ..base.errors import RequestError
from ..base.options import (
    Options,
    choice,
    count,
    default_of,
    fraction,
    option,
    options,
    or_word,
    quantity,
    several,
    switch,
    text,
)
from ..data.limits import MAX_PIXELS
from ..data.resize import RESIZES
from ..deploy.engines import ENGINES, READERS
from ..network.channels import STRATEGIES
from ..pruning.importance import SCORES
from ..pruning.plan import FOLDS
from ..pruning.policy import SCORE_NAMES
from ..training.penalties import PENALTIES
from ..training.precision import KINDS
from ..training.pressure import SCHEDULES
from .recipes import find, read_recipe

PERCENT = 0.85
AUTO = "auto"  # of scores
CALIBRATION = 8  # batches, for a sweep and for scores that look at gradients
WORKERS = min(2, os.cpu_count() or 1)
AMOUNT = "how much to cut (one of these)"
REPAIR = "what repairs the network after the cut (one of these)"
ENGINE_HELP = "what runs the network; none: torch, or what reads --exported"
EXPORTED_HELP = f"in place of cfg and weights a file of export.py ({', '.join(READERS)})"
UNITS, TIMES = {"k": 1e3, "M": 1e6, "G": 1e9}, {"ms": 1e-3, "s": 1}


@dataclass(frozen=True)
class Common(Options):
    """What every job takes."""

    model_def: str = option("config/yolov3-hand.cfg", text, "the network", metavar="CFG", reads=True)
    data_config: str = option(
        "config/oxfordhand.data", text, "classes, lists and names", metavar="FILE", reads=True
    )
    img_size: int | None = option(None, count(32, 8192), "side of the square input; none: the cfg's size")
    resize: str = option(
        "antialias",
        choice(*RESIZES),
        "how pictures are shrunk to the input; opencv and darknet: as these do, without antialiasing",
    )
    n_cpu: int = option(WORKERS, count(0, 256), "processes that load images")
    skip_broken: bool = option(
        False, switch, "leave out pictures that cannot be read, and name them, instead of stopping"
    )
    max_pixels: int = option(
        MAX_PIXELS, count(1, 1 << 34), "pixels from which on a picture is refused as a trap for memory"
    )
    seed: int = option(0, count(0, 2**32 - 1), "seed of every random choice")
    device: str = option("auto", text, "auto, cpu, cuda or cuda:N")

    @property
    def reading(self) -> dict:
        """What `check_dataset` is told of pictures that cannot be read."""
        return {"skip_broken": self.skip_broken, "max_pixels": self.max_pixels}

    def shared(self, but: str = "") -> dict:
        """What a job within a job takes over, beside its network and data."""
        names = {f.name for f in fields(Common)} - {"model_def", "data_config", but}
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Thresholds(Options):
    """How detections are counted."""

    iou_thres: float = option(0.5, fraction(), "overlap from which a detection is right")
    conf_thres: float = option(0.01, fraction(), "least objectness of a detection")
    nms_thres: float = option(0.5, fraction(), "overlap from which the weaker of two boxes goes")


@dataclass(frozen=True)
class Optimization(Options):
    """How weights are trained, whatever for."""

    batch_size: int = option(16, count(1), "images that one optimizer step sees, over all processes")
    accumulate: int = option(1, count(1), "micro-batches that each step is cut into, to save memory")
    learning_rate: float | None = option(None, fraction(0, 100), "none: the cfg's", "--learning_rate", "-lr")
    schedule: str = option(
        "cosine",
        choice("cosine", "steps"),
        "how the learning rate falls; steps: the cfg's steps and scales, stretched over this run",
    )
    ema: float = option(0.999, fraction(0, 0.999999), "decay of the average of the weights; 0: none")
    clip: float = option(0.0, fraction(0, 1e9), "largest norm of the gradient; 0: any")
    amp: str = option("auto", choice(*KINDS), "reduced precision of the forward pass")
    t_cfg: str | None = option(
        None,
        text,
        "network of a teacher, whose heads this one's are pulled to; none: --model_def",
        "--t_cfg",
        metavar="CFG",
        reads=True,
    )
    t_weights: str | None = option(
        None,
        text,
        "the teacher's weights; none: there is no teacher",
        "--t_weights",
        metavar="FILE",
        reads=True,
    )
    t_kl: float = option(
        1.0,
        fraction(0, 1e6),
        "weight of the teacher's objectness, classes and boxes, heard where they are nearer to the truth",
    )
    t_cwd: float = option(
        1.0, fraction(0, 1e6), "weight of where the teacher looks: channel-wise divergence of the head maps"
    )
    s: float | str = option(
        0.01,
        or_word(fraction(0, 1e6), "auto"),
        "strength of the penalty; auto: as much as presses a gamma from 1 to zero in this run (torchrun "
        "takes --s for its own unless -- stands before train.py)",
        "--s",
        "--strength",
    )
    sr_penalty: str = option(
        "l1",
        choice(*PENALTIES),
        "what -sr adds: l1 on the gammas; prox, the same as a proximal step, with exact zeros; polarization, "
        "which parts small ones from large ones; group, on all gammas of a channel class together; gate, on "
        "coefficients behind the activations, which close for good and are folded away when written",
    )
    sr_schedule: str | None = option(
        None,
        choice(*SCHEDULES),
        "how the penalty changes: not (constant); after half of the run a hundredth of it (global-decay), or "
        "that on the largest 15% alone (local-decay); at any time only on the smaller half (lower-half); "
        "none: lower-half for gates, else constant",
    )
    vflip: float = option(0.0, fraction(), "chance of turning a training picture upside down")
    mosaic: float | None = option(
        None,
        fraction(),
        "chance that a training picture shows parts of four; none: 0.5 where the cfg has mosaic=1, else 0; "
        "none of them in the last tenth of the epochs",
    )
    balance: float = option(
        0.0,
        fraction(),
        "show pictures more often that have a class which fewer than this share of the pictures have; 0: no",
    )
    multiscale_training: bool = option(False, switch, "another input size every 10 steps")


@dataclass(frozen=True)
class TrainSettings(Optimization, Common):
    """Settings of `train`."""

    pretrained_weights: str | None = option(
        None,
        text,
        "a .weights, .pth or backbone file; none: the file in weights/ that fits, else random",
        "--pretrained_weights",
        "-pre",
        metavar="FILE",
        reads=True,
    )
    epochs: int | None = option(
        None,
        count(1),
        "passes over the training list; none: 100, or from random weights the more that make 2,000 steps",
    )
    sr: bool = option(False, switch, "press the gammas towards zero", "--sparsity-regularization", "-sr")
    strategy: str = option(
        "normal",
        choice(*STRATEGIES),
        "-sr presses what this strategy of test_prune.py may cut; normal leaves out what shortcuts join",
    )
    int8: bool = option(
        False, switch, "round kernels and feature maps as export.py --int8 will: for a few last epochs"
    )
    freeze: int = option(
        0, count(), "first layers that are not trained, beside those before a stopbackward=1 of the cfg"
    )
    evaluation_interval: int = option(1, count(0), "epochs between evaluations; 0: only at the end")
    checkpoint_interval: int = option(
        1, count(0), "epochs between saves of the state to resume from; 0: only at the end"
    )
    checkpoint: str | None = option(
        None,
        text,
        "where the weights go, as .pth and as Darknet's .weights; none: checkpoints/yolov3_ckpt.pth, or "
        "_finetuned.pth (_sparse.pth with -sr) after the name of the network that -pre gives",
        metavar="PATH",
    )
    keep: str | None = option(
        None,
        choice("best", "last"),
        "keep the weights with the best mAP50 on `valid`, or the last; none: best, but last with -sr",
    )
    logdir: str = option("logs", text, "TensorBoard events and gammas.png, one folder a run", metavar="DIR")
    resume: bool = option(
        False, switch, "go on with the run that --checkpoint belongs to; give the same flags"
    )


@dataclass(frozen=True)
class EvaluateSettings(Thresholds, Common):
    """Settings of `evaluate`."""

    weights_path: str = option(
        "checkpoints/yolov3_ckpt.pth",
        text,
        "its weights: a .pth or .weights file",
        metavar="FILE",
        reads=True,
    )
    images: str | None = option(
        None,
        text,
        "the list of pictures to measure on; none: `valid` of --data_config",
        metavar="LIST",
        reads=True,
    )
    engine: str | None = option(None, choice(*ENGINES), ENGINE_HELP)
    exported: str | None = option(None, text, EXPORTED_HELP, metavar="FILE", reads=True)
    plus_one: bool = option(False, switch, "overlaps with a pixel more on each side, as the reference counts")
    multi_label: bool = option(
        False, switch, "every class of a box above --conf_thres, as Darknet's `detector map`"
    )
    batch_size: int = option(16, count(1), "images at once")
    amp: bool = option(False, switch, "forward pass in bfloat16 (quicker, scores differ in the third digit)")
    figure: str | None = option(None, text, "draw precision over recall into this PNG", metavar="FILE")
    examples: str | None = option(
        None, text, "draw the first pictures with truths and detections into this PNG", metavar="FILE"
    )


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
        f"--reconstruct {CALIBRATION} unless told otherwise), the best on the pictures that choose is taken",
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
        choice(*ENGINES),
        "what runs the network whose latency is told, and meant by --target-latency",
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


@dataclass(frozen=True, init=False)
class SlimSettings(Targets, Cutting, Optimization, Common):
    """Settings of `slim`: those that are given, before those of the recipe, before the defaults.

    Raises:
        RequestError, FileError: an unknown recipe, one with a wrong key or value, or settings that cannot be.
    """

    weights: str | None = option(
        None, text, "a trained network to begin with; none: it is trained first", metavar="FILE", reads=True
    )
    teacher: str = option(
        "none",
        choice("dense", "none"),
        "what finetuning is pulled to beside the truths: the network before all cuts, or nothing; "
        "--t_weights names another",
    )
    recipe: str = option("slimming", text, "how: a name in config/recipes, or a file", metavar="NAME")
    max_map_drop: float | None = option(
        None,
        fraction(),
        "stop before a step that loses more mAP than this after finetuning, on the pictures of --choose_on",
        "--max-map-drop",
        metavar="D",
    )
    rate: float | str = option(
        0.5,
        or_word(fraction(0, 0.99), "auto"),
        "share of the prunable channels to cut over all steps, where no target says more; auto: in each step "
        "what lies before the valley of the scores",
    )
    iterative_steps: int = option(
        1,
        count(1, 1000),
        "steps; step i of n leaves (1 - rate)^(i/n), or that power of the target",
        "--iterative-steps",
        metavar="N",
    )
    epochs: int | None = option(
        None, count(1), "of the dense training, where there is any; none: as train.py takes"
    )
    sparse_epochs: int = option(100, count(), "of sparsity training, shared out over the steps; 0: none")
    finetune_epochs: int = option(100, count(1), "of finetuning, shared out over the steps")
    recalibrate: int = option(
        0,
        count(),
        "batches of `train` to re-estimate the batch norms on after each cut",
        metavar="N",
        group=REPAIR,
    )
    reconstruct: int = option(
        0,
        count(),
        "batches of `train` on which what stays is solved again by least squares after each cut; 0: no",
        metavar="N",
        group=REPAIR,
    )
    eval_batch_size: int = option(16, count(1), "images at once when measuring mAP and recalibrating")
    work: str = option(
        "runs/slim", text, "where everything goes; the same line goes on where it stopped", metavar="DIR"
    )

    def __init__(self, recipe: str = "slimming", **given):
        known = [f.name for f in fields(self)]
        if unknown := set(given) - set(known):
            raise TypeError(f"no settings of slim: {', '.join(sorted(unknown))}")
        its = read_recipe(recipe, SlimSettings)
        groups = {name: o.group for name, o in options(SlimSettings).items() if o.group}
        taken = {groups[name] for name in groups if given.get(name) is not None}  # in place of the recipe's
        its = {name: value for name, value in its.items() if groups.get(name) not in taken}
        values = {**its, **given, "recipe": recipe}
        for name in known:
            object.__setattr__(self, name, values.get(name, default_of(SlimSettings, name)))
        self.__post_init__()

    def reads(self) -> dict:
        return {**super().reads(), "--recipe": find(self.recipe)}

    def __post_init__(self):
        super().__post_init__()
        if self.finetune_epochs < self.iterative_steps:
            raise RequestError(
                "--finetune_epochs",
                f"{self.finetune_epochs} epochs for {self.iterative_steps} steps",
                "at least one a step",
                "finetune longer, or take fewer --iterative-steps",
            )
        if 0 < self.sparse_epochs < self.iterative_steps:
            raise RequestError(
                "--sparse_epochs",
                f"{self.sparse_epochs} epochs for {self.iterative_steps} steps",
                "none, or at least one a step",
                "train longer, or take fewer --iterative-steps",
            )
