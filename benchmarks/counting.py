"""How much the arithmetic around a network moves its mAP: shrinking of pictures, counting of overlaps.

    python benchmarks/counting.py --folder DIR --pictures DIR --json docs/results/counting.json

Published detectors on a sample of COCO (see published.py for both folders), measured by test.py.
"""

from __future__ import annotations

from pathlib import Path

from published import data_file
from stages import ROOT, Stages

from darkslim import commands
from darkslim.report.tables import right

NAMES = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")
WAYS = {
    "as by default": [],
    "pictures shrunk as OpenCV does": ["--resize", "opencv"],
    "pictures shrunk as Darknet does": ["--resize", "darknet"],
    "overlaps with a pixel more, as the reference": ["--plus_one"],
    "every class of a box, as Darknet's map": ["--multi_label"],
}


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--folder", required=True, help="folder of the published cfgs and weights")
    p.add_argument("--pictures", required=True, help="folder with train.txt, val.txt, coco.names")
    p.add_argument("--work", default="runs/counting", help="where everything goes")
    return p


def main(args) -> dict:
    stages = Stages(ROOT / args.work, args.seed)
    data = data_file(Path(args.pictures).resolve(), ROOT / args.work).relative_to(ROOT)
    rows = []
    for name in NAMES:
        network = [
            "--model_def",
            f"{args.folder}/{name}.cfg",
            "--weights_path",
            f"{args.folder}/{name}.weights",
        ]
        for way, flags in WAYS.items():
            words = [*network, "--data_config", data, "--conf_thres", 0.005, *flags]
            r = stages.run(f"{name} {'-'.join(flags) or 'plain'}".replace("/", "-"), "test.py", *words)
            rows.append({"network": name, "way": way, "map50": r["map50"], "map": r["map"]})
    for row in rows:
        plain = next(r for r in rows if r["network"] == row["network"])
        row["change"] = row["map50"] - plain["map50"]
    shown = [[r["network"], r["way"], f"{r['map50']:.4f}", f"{r['change']:+.4f}"] for r in rows]
    print(right([["network", "way", "mAP50", "change"], *shown]))
    return {"rows": rows, "commands": stages.commands, "sources": stages.sources}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
