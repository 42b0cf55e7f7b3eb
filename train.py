"""Trains a Darknet detector from its cfg, dense or with sparsity on the BatchNorm gammas.

python train.py --model_def config/yolov3-hand.cfg                       # baseline
python train.py --model_def config/yolov3-hand.cfg -sr --s 0.01          # sparsity training
python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth
torchrun --nproc_per_node 2 -- train.py ...                              # several processes
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("train"))

from darkslim.commands.train_command import main, parser  # noqa: F401 - for `import train`
