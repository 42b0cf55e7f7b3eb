"""Trains a Darknet detector from its cfg, dense or with sparsity on the BatchNorm gammas.

python train.py --model_def config/yolov3-hand.cfg                       # baseline
python train.py --model_def config/yolov3-hand.cfg -sr --s 0.01          # sparsity training
python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth
torchrun --nproc_per_node 2 -- train.py ...                              # several processes
"""

from __future__ import annotations

from darkslim import commands
from darkslim.base.signals import StopFlag
from darkslim.pipelines import TrainSettings, train


def parser():
    return commands.options_parser("Train a Darknet detector, dense or sparse.", TrainSettings)


def main(args) -> dict:
    settings = commands.settings(TrainSettings, args)
    with StopFlag() as stop:
        result = train(settings, commands.Console(), stop)
    if not result:
        args.json = None  # one process of a distributed run writes
    return result


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
