"""Finds objects in pictures, draws them, and writes labels.

python detect.py --source photos --names data/mine/mine.names
python detect.py --source 'photos/**/*.jpg' --save_labels darknet --no_pictures
"""

from __future__ import annotations

from collections import Counter

from ..base import files
from ..base.signals import StopFlag
from ..pipelines import DetectSettings, detect
from . import console, flags


def parser():
    return flags.options_parser("Find objects in pictures.", DetectSettings)


def main(args) -> dict:
    settings = flags.settings(DetectSettings, args)
    flags.check_json(args.json)
    if settings.save is not None:
        files.check_outputs({"--save_labels": f"{settings.save}/detections.json", "--json": args.json}, {})
    with StopFlag() as stop:
        result = detect(settings, console.Console(), stop)
    counts = Counter(one["name"] for row in result["detections"] for one in row["detections"])
    said = ", ".join(f"{number} {name}" for name, number in counts.most_common(10)) or "nothing"
    speed = result["images"] / max(1e-9, result["seconds"])
    what = "frames" if "fps" in result else "pictures"
    print(f"{result['images']} {what} in {result['seconds']:.1f} s ({speed:.1f} a second): {said}")
    if settings.save is not None:
        print(f"written:    {settings.save}")
    return result
