"""Scores a detector on the validation list: AP as the reference computes it, and COCO's.

python test.py                                                                  # what train.py left
python test.py --model_def config/prune_yolov3-hand.cfg --weights_path checkpoints/prune_yolov3_ckpt.pth
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("test"))

from darkslim.commands.test_command import main, parser  # noqa: F401 - for `import test`
