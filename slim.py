"""From a cfg and a data set to a slimmer network: train, sparsify, cut, finetune, in steps, to a target.

It can be killed at any moment: the same line goes on.

    python slim.py --target-macs 0.35                          # recipe slimming, everything in runs/slim
    python slim.py --recipe depgraph --target-macs 0.35 --weights checkpoints/yolov3_ckpt.pth
    python slim.py --recipe slimming-iterative --rate 0.9 --max-map-drop 0.01    # as far as the mAP allows
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("slim"))

from darkslim.commands.slim_command import main, parser  # noqa: F401 - for `import slim`
