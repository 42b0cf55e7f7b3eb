"""Writes a detector in another format, compared with PyTorch before it counts.

python export.py --model_def config/prune_yolov3-hand.cfg --weights checkpoints/prune_yolov3_ckpt.pth
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("export"))

from darkslim.commands.export_command import main, parser  # noqa: F401 - for `import export`
