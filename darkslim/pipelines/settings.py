"""The settings that jobs share, and those of training and measuring, with their defaults, bounds and one line
each: flags, recipes and Python read the same table. Those of cuts are in cut_settings.py, those of slim in
slim_settings.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..base.cores import cores
from ..base.options import Options, choice, count, fraction, option, or_word, switch, text
from ..data.limits import MAX_PIXELS
from ..data.resize import RESIZES
from ..deploy.engines import ENGINES, READERS
from ..network.channels import STRATEGIES
from ..training.penalties import PENALTIES
from ..training.precision import KINDS
from ..training.pressure import SCHEDULES

WORKERS = min(2, cores())
ENGINE_HELP = "what runs the network; none: torch, or what reads --exported"
EXPORTED_HELP = f"in place of cfg and weights a file of export.py ({', '.join(READERS)})"


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
    learning_rate: float | None = option(
        None,
        fraction(0, 100),
        "none: the cfg's; less in a short run from trained weights",
        "--learning_rate",
        "-lr",
    )
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
