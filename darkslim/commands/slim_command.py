"""From a cfg and a data set to a slimmer network: train, sparsify, cut, finetune, in steps, to a target.

It can be killed at any moment: the same line goes on.

    python slim.py --target-macs 0.35                       # press, cut, repair, finetune; all in runs/slim
    python slim.py --recipe depgraph --target-macs 0.35 --weights checkpoints/yolov3_ckpt.pth
    python slim.py --recipe slimming-iterative --rate 0.9 --max-map-drop 0.01    # as far as the mAP allows
"""

from __future__ import annotations

from pathlib import Path

from ..base.errors import RequestError
from ..base.signals import StopFlag
from ..pipelines import SlimSettings, slim
from ..report import slim_report, tables
from . import console, flags


def parser():
    return flags.options_parser(
        "Slim a detector in steps, to a target; the same line goes on where it stopped.", SlimSettings
    )


def main(args) -> dict:
    settings = flags.settings(SlimSettings, args)
    flags.guard(settings, args, {}, settings.choose_on)
    if args.json and Path(settings.work).resolve() in Path(args.json).resolve().parents:
        raise RequestError(
            "--json", f"{args.json} lies in --work, whose files are the run's", "another folder"
        )
    with StopFlag() as stop:
        result = slim(settings, console.Console(), stop)
    print(slim_report.table(result))
    show(settings, result)
    return result


def show(settings: SlimSettings, result: dict) -> None:
    """What came of it, and where it lies."""
    keys = ("params", "macs", "latency", "latency_spread", "bytes")
    print(
        tables.comparison(
            *(
                {"map50": result[f"{name}_map50"], **{key: result[f"{key}_{when}"] for key in keys}}
                for name, when in (("dense", "before"), ("final", "after"))
            )
        )
    )
    if result["max_abs_diff"] is not None:
        print(
            f"proof:      compact against masked differed by at most {result['max_abs_diff']:.2e} in every "
            "cut; what is handed back was "
            "read back from the disk and is equal bit by bit"
        )
    for name in ("cfg", "weights", "picture"):
        print(f"{name + ':':12}{result[name]}")
    print(f"report:     {settings.work}/report.json")
    if "report" in result:
        print(f"page:       {result['report']}")
