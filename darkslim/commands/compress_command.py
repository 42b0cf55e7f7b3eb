"""Makes the files of a detector smaller: deep compression.

python compress.py pack --bits 5                                    # shared values, entropy-coded, one file
python compress.py unpack --file checkpoints/yolov3_ckpt.packed     # and back: .cfg, .pth, .weights
python compress.py info --file checkpoints/yolov3_ckpt.packed       # what a file holds
"""

from __future__ import annotations

from ..base.signals import StopFlag
from ..pipelines import PackedSettings, PackSettings, info, pack, unpack
from ..report.packed_bytes import by_layer, by_stage
from . import console, flags

JOBS = {
    "pack": (PackSettings, "kernels as shared values, entropy-coded, in one file"),
    "unpack": (PackedSettings, "a packed file as .cfg, .pth and .weights"),
    "info": (PackedSettings, "what a packed file holds"),
}


def parser():
    return flags.commands_parser("Make the files of a detector smaller.", JOBS)


def main(args) -> dict:
    with StopFlag() as stop:
        return {"pack": packs, "unpack": unpacks, "info": tells}[args.job](args, stop)


def packs(args, stop: StopFlag) -> dict:
    settings = flags.settings(PackSettings, args)
    from ..pipelines.pack import packed_path

    writes = {"--out": packed_path(settings), "--figure": settings.figure}
    if settings.no_eval:
        flags.check_json(args.json)
    else:
        flags.guard(settings, args, writes)
    result = pack(settings, console.Console(), stop)
    print(by_layer(result["layers"]))
    print(by_stage(result["stages"], result["entropy"]))
    if result["map50_before"] is not None:
        print(f"mAP50:      {result['map50_before']:.4f} before, {result['map50_after']:.4f} packed")
    print(f"packed:     {result['file']}, read back and equal bit by bit")
    print(
        "            time does not change: it is unpacked where it is loaded (test.py --weights_path takes it)"
    )
    if result["figure"]:
        print(f"picture:    {result['figure']}")
    return result


def unpacks(args, stop: StopFlag) -> dict:
    settings = flags.settings(PackedSettings, args)
    flags.check_json(args.json)
    result = unpack(settings, console.Console(), stop)
    print(f"unpacked:   {result['cfg']}, {result['checkpoint']}, {result['weights']}")
    return result


def tells(args, stop: StopFlag) -> dict:
    settings = flags.settings(PackedSettings, args)
    flags.check_json(args.json)
    result = info(settings, console.Console(), stop)
    height, width = result["input"]
    print(f"{result['file']}: {width}x{height}, {result['classes']} classes, {result['zeros']:.1%} zeros")
    print(by_layer(result["layers"]))
    print(by_stage(result["stages"], result["entropy"]))
    return result
