"""Scores a detector on the validation list: AP as the reference computes it, and COCO's.

python test.py                                                                  # what train.py left
python test.py --model_def config/prune_yolov3-hand.cfg --weights_path checkpoints/prune_yolov3_ckpt.pth
"""

from __future__ import annotations

from ..base.signals import StopFlag
from ..pipelines import EvaluateSettings, evaluate
from ..pipelines.evaluate import SHOWN
from ..report.tables import scores
from . import console, flags


def parser():
    return flags.options_parser("Score a detector on the validation list of a data set.", EvaluateSettings)


def main(args) -> dict:
    settings = flags.settings(EvaluateSettings, args)
    flags.guard(
        settings, args, {"--figure": settings.figure, "--examples": settings.examples}, settings.images
    )
    with StopFlag() as stop:
        result = evaluate(settings, console.Console(), stop)
    print(scores(result, settings.iou_thres))
    print(f"{result['seconds']:.1f} s, {result['images'] / result['seconds']:.1f} images/s")
    if settings.figure:
        print(f"curve: {settings.figure}")
    if settings.examples:
        print(f"examples: {settings.examples} (truths green; detections of a score of at least {SHOWN:g})")
    return result
