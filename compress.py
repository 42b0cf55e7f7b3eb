"""Makes the files of a detector smaller: unstructured sparsity, network surgery, deep compression.

python compress.py sparsify --ratio 0.3 --reconstruct 8            # the smallest weights to 0
python compress.py surgery --ratio 0.9 --epochs 30                  # weights go and come back while it trains
python compress.py pack --bits 5                                    # shared values, entropy-coded, one file
python compress.py unpack --file checkpoints/yolov3_ckpt.packed     # and back: .cfg, .pth, .weights
python compress.py info --file checkpoints/yolov3_ckpt.packed       # what a file holds
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("compress"))

from darkslim.commands.compress_command import main, parser  # noqa: F401 - for `import compress`
