"""Trains a Darknet detector from its cfg, dense or with sparsity on the BatchNorm gammas.

python train.py --model_def config/yolov3-hand.cfg                       # baseline
python train.py --model_def config/yolov3-hand.cfg -sr --s 0.01          # sparsity training
python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth
torchrun --nproc_per_node 2 -- train.py ...                              # several processes
"""

from __future__ import annotations

from ..base.signals import StopFlag
from ..pipelines import TrainSettings, train
from ..training.start import written
from . import console, flags


def parser():
    return flags.options_parser("Train a Darknet detector, dense or sparse.", TrainSettings)


def main(args) -> dict:
    settings = flags.settings(TrainSettings, args)
    names = ("--checkpoint", "--checkpoint (.weights)", "--checkpoint (.last.pth)")
    flags.guard(settings, args, dict(zip(names, written(settings.checkpoint), strict=False)))
    with StopFlag() as stop:
        result = train(settings, console.Console(), stop)
    if not result:
        args.json = None  # one process of a distributed run writes
        return result
    data = flags.unless_default(settings, "data_config")
    if settings.sr:
        cfg = flags.unless_default(settings, "model_def")
        also = "" if settings.strategy == TrainSettings.strategy else f" --strategy {settings.strategy}"
        how = {"gate": " --percent auto --score readers", "polarization": " --percent auto"}
        how = how.get(settings.sr_penalty) or (f" --percent {result['safe']:g}" if result["safe"] else "")
        print(f"cut:        python test_prune.py{cfg} --model {result['checkpoint']}{data}{how}{also}")
    return result
