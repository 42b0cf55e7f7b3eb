"""Cuts the channels that sparsity training has made superfluous, proves it, and writes a smaller network.

It reads a cfg and its weights, and writes an ordinary cfg with .pth and .weights.

    python test_prune.py                                       # after sparsity training
    python test_prune.py --percent 0.7 --no_eval               # needs no data set
    python test_prune.py --strategy slim --target-macs 0.4     # through shortcuts, to 40% of the MACs
    python test_prune.py --sweep                               # a table and a picture; writes no network
    python test_prune.py --sensitivity                         # the same for every layer alone

Then finetune: python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth
"""

from __future__ import annotations

from ..base.signals import StopFlag
from ..pipelines import PruneSettings, prune
from ..pipelines.prune_job import writes
from . import console, flags


def parser():
    return flags.options_parser(
        "Cut a trained detector by its gammas, prove that the small network equals the masked one, and "
        "write it.",
        PruneSettings,
    )


def main(args) -> dict:
    settings = flags.settings(PruneSettings, args)
    flags.guard(settings, args, writes(settings), settings.choose_on)
    with StopFlag() as stop:
        result = prune(settings, console.Console(), stop)
    show = show_cut if settings.sweep is None else show_sweep
    (show if settings.sensitivity is None else show_layers)(settings, result)
    return result


def show_layers(settings: PruneSettings, result: dict) -> None:
    """Where the table lies, and how a cut may use it."""
    print(
        f"rise of the loss on {result['pictures']} training pictures; --max-layer-loss D bounds a cut by it"
    )
    print(f"table:      {result['csv']}\npicture:    {result['picture']}")


def show_sweep(settings: PruneSettings, result: dict) -> None:
    """What to take of the ratios that were tried."""
    also = "".join(f" --{how} {result[how]}" for how in ("recalibrate", "reconstruct") if result[how])
    said = (
        "none of these ratios"
        if result["recommended"] is None
        else f"--percent {result['recommended']:g}{also}"
    )
    why = (
        f"at most {result['allowed_drop']:g} of mAP50 lost"
        if result["before"]["map50"] is not None
        else f"{100 * result['near_zero']:.0f}% of the gammas are near zero; no mAP was measured"
    )
    print(f"recommended: {said} ({why})")
    if result["left_out"]:
        print(
            f"left out:   what is above {result['rows'][-1]['percent']:g}: --layer_keep and --round_to "
            "allow no deeper cut"
        )
    print(f"table:      {result['csv']}\npicture:    {result['picture']}")


def show_cut(settings: PruneSettings, result: dict) -> None:
    """Where everything lies, and what to do next."""
    for name in ("cfg", "checkpoint", "weights", "picture", "report"):
        if name in result:
            print(f"{name + ':':12}{result[name]}")
    if not result["trainable"]:
        print("finetune:   in Darknet: [region] heads cannot be trained here")
    elif not result["fused"]:
        data = flags.unless_default(settings, "data_config")
        print(f"finetune:   python train.py --model_def {result['cfg']} -pre {result['checkpoint']}{data}")
        teacher = f"--t_cfg {settings.model_def} --t_weights {settings.model}"
        print(f"            or with the network of before as its teacher: {teacher}")
