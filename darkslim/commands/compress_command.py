"""Makes the files of a detector smaller: unstructured sparsity, network surgery, deep compression.

python compress.py sparsify --ratio 0.6 --reconstruct 8            # weights to 0 that others can make up for
python compress.py surgery --ratio 0.9 --epochs 30                  # weights go and come back while it trains
python compress.py pack --bits 4 --reconstruct 8                    # shared values, entropy-coded, one file
python compress.py unpack --file checkpoints/yolov3_ckpt.packed     # and back: .cfg, .pth, .weights
python compress.py info --file checkpoints/yolov3_ckpt.packed       # what a file holds
"""

from __future__ import annotations

from ..base.signals import StopFlag
from ..pipelines import (
    PackedSettings,
    PackSettings,
    SparsifySettings,
    SurgerySettings,
    info,
    pack,
    sparsify,
    surgery,
    unpack,
)
from ..pipelines.pack import packed_path
from ..pipelines.sparsify import sparse_path
from ..report import sparse_text
from ..report.packed_bytes import by_layer, by_stage
from . import console, flags

JOBS = {
    "sparsify": (SparsifySettings, "the smallest weights to 0, for weights of the same cfg"),
    "surgery": (SurgerySettings, "weights go and come back while the network trains"),
    "pack": (PackSettings, "kernels as shared values, entropy-coded, in one file"),
    "unpack": (PackedSettings, "a packed file as .cfg, .pth and .weights"),
    "info": (PackedSettings, "what a packed file holds"),
}
LOST = 0.005  # of mAP50, more than sharing values has to cost


def parser():
    return flags.commands_parser("Make the files of a detector smaller.", JOBS)


def main(args) -> dict:
    jobs = {"sparsify": thins, "surgery": thins, "pack": packs, "unpack": unpacks, "info": tells}
    with StopFlag() as stop:
        return jobs[args.job](args, stop)


def thins(args, stop: StopFlag) -> dict:
    kind, job, word = {
        "sparsify": (SparsifySettings, sparsify, "sparsified"),
        "surgery": (SurgerySettings, surgery, "surgery"),
    }[args.job]
    settings = flags.settings(kind, args)
    out = sparse_path(settings, word)
    if settings.no_eval and not getattr(settings, "epochs", 0) and not getattr(settings, "reconstruct", 0):
        flags.check_json(args.json)
    else:
        flags.guard(settings, args, {"--out": out, "--out (.weights)": out.with_suffix(".weights")})
    result = job(settings, console.Console(), stop)
    print(sparse_text.by_layer(result["layers"]))
    if result["before"] is not None:
        print(sparse_text.validation(result["before"], result["after"]))
    if result.get("map50_solved") is not None:
        print(f"solved:     mAP50 {result['map50_solved']:.4f}, before the training")
    print(sparse_text.sizes(result["bytes_before"], result["bytes_after"], result["zeros"]))
    print(f"weights:    {result['checkpoint']}, {result['weights']}")
    if "report" in result:
        print(f"report:     {result['report']}")
    return result


def packs(args, stop: StopFlag) -> dict:
    settings = flags.settings(PackSettings, args)
    writes = {"--out": packed_path(settings), "--figure": settings.figure}
    if settings.no_eval and not settings.epochs and not settings.reconstruct:
        flags.check_json(args.json)
    else:
        flags.guard(settings, args, writes)
    result = pack(settings, console.Console(), stop)
    print(by_layer(result["layers"]))
    print(by_stage(result["stages"], result["entropy"]))
    if result["map50_before"] is not None:
        shared = result["map50_shared"]
        between = "" if shared is None else f"{shared:.4f} with values shared, "
        print(f"mAP50:      {result['map50_before']:.4f} before, {between}{result['map50_after']:.4f} packed")
        if result["map50_before"] - result["map50_after"] > LOST and not settings.reconstruct:
            print("            --reconstruct 8 chooses values so that others make up for them, in minutes")
    print(f"packed:     {result['file']}, read back and equal bit by bit")
    print("            time does not change: it is unpacked where it is loaded, as by test.py --weights_path")
    if result["figure"]:
        print(f"picture:    {result['figure']}")
    if "report" in result:
        print(f"report:     {result['report']}")
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
