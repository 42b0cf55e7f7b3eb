"""Cuts the channels that sparsity training has made superfluous, proves it, and writes a smaller network.

It reads a cfg and its weights, and writes an ordinary cfg with .pth and .weights.

    python test_prune.py                                       # after sparsity training
    python test_prune.py --percent 0.7 --no_eval               # needs no data set
    python test_prune.py --strategy slim --target-macs 0.4     # through shortcuts, to 40% of the MACs
    python test_prune.py --sweep                               # a table and a picture; writes no network

Then finetune: python train.py --model_def config/prune_yolov3-hand.cfg -pre checkpoints/prune_yolov3_ckpt.pth
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("test_prune"))

from darkslim.commands.test_prune_command import main, parser  # noqa: F401 - for `import test_prune`
