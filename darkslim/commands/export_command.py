"""Writes a detector in another format, compared with PyTorch before it counts.

python export.py --model_def config/prune_yolov3-hand.cfg --weights checkpoints/prune_yolov3_ckpt.pth
python export.py --format openvino --int8
"""

from __future__ import annotations

from ..base.signals import StopFlag
from ..pipelines import ExportSettings, export
from ..pipelines.export import exported_paths
from . import console, flags

MUCH = 0.005  # of mAP50 that 8 bits may cost before training for them is named


def parser():
    return flags.options_parser("Write a detector in another format.", ExportSettings)


def main(args) -> dict:
    settings = flags.settings(ExportSettings, args)
    if settings.no_eval:
        flags.check_json(args.json)
    else:
        flags.guard(settings, args, {f"--out ({path.suffix})": path for path in exported_paths(settings)})
    with StopFlag() as stop:
        result = export(settings, console.Console(), stop)
    print(
        f"compared:   {result['compared']} pictures, boxes differ by at most {result['max_abs_diff']:.2g} "
        "(pixels, shares)"
    )
    height, width = result["img_size"]
    print(f"sizes:      {width}x{height}; of sizes {result['sizes']}, pictures at once: {result['batches']}")
    if result["int8"]:
        kept = ", ".join(map(str, result["kept_float"]))
        print(f"8 bits:     all but layers {kept}, which stay in float32")
    if result["map50_float"] is not None:
        print(f"mAP50:      {result['map50_float']:.4f} here, {result['map50_exported']:.4f} exported")
        if result["int8"] and result["map50_float"] - result["map50_exported"] > MUCH:
            print("            train.py --int8 -pre these weights trains for 8 bits; then export again")
    written = ", ".join(map(str, result["files"]))
    print(f"written:    {written} ({result['bytes']:,} bytes), {result['seconds']:.0f} s")
    return result
