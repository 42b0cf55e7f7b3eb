"""Writes the README's results out of docs/results/*.json: no number there that no command printed.

    python benchmarks/readme.py            # rewrites the part between the markers
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stages import ROOT

from darkslim import command, files

START, END = "<!-- results: written by benchmarks/readme.py from docs/results -->", "<!-- end of results -->"


def parser() -> argparse.ArgumentParser:
    return command.parser(__doc__.split("\n")[0])


def main(args) -> dict:
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(START)
    files.save(path, before + section(ROOT / "docs/results") + rest.split(END)[1])
    print(f"{path.name}: results written")
    return {}


def section(folder: Path) -> str:
    """The part of the README between the markers, markers included."""
    read = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
    parts = [bccd(read), demo(read), speed(read)]
    return "\n\n".join([START, *(p for p in parts if p), END])


def bccd(read: dict) -> str:
    r = read.get("bccd")
    if not r:
        return ""
    rows = ["| stage | mAP50 | Platelets | RBC | WBC | parameters | MACs | latency, batch 1 |", "|---|---|---|---|---|---|---|---|"]
    whole = next(x for x in r["rows"] if "params_before" in x)
    for x in r["rows"]:
        params = x.get("params_after", whole["params_before"])
        macs = x.get("macs_after", whole["macs_before"])
        late = x.get("latency_after")
        late = f"{1e3 * x['latency_before']:.1f} -> {1e3 * late:.1f} ms" if late else ""
        classes = " | ".join(f"{x['per_class'][n]:.3f}" if "per_class" in x else "" for n in ("Platelets", "RBC", "WBC"))
        rows.append(f"| {x['stage']} | {x['map50']:.4f} | {classes} | {params / 1e6:.2f} M | {macs / 1e9:.3f} G | {late} |")
    return ("**Real pictures: BCCD blood cells**, yolov3-tiny at 416 from random weights, trained on the 292 images of trainval, "
            f"measured on the 72 of test, which chose nothing (last weights of every stage; one run, seed {r['seed']}; "
            f"{machine(r)}; `python benchmarks/bccd.py --control`, [JSON](docs/results/bccd.json)). Percent: share of the prunable "
            "channels that was cut; \"pruned\" is before any finetuning. Training goes on at each stage (60 epochs "
            "dense, 30 sparse, 30 finetuned), so "
            "a finetuned network has seen more pictures than the dense one. The "
            "control is the smallest network trained from random weights for 60 epochs. All of these are single "
            "runs on few pictures.\n\n"
            + "\n".join(rows))


def demo(read: dict) -> str:
    r = read.get("demo")
    if not r:
        return ""
    rows = ["| | dense | sparse | pruned | finetuned |", "|---|---|---|---|---|",
            "| mAP50 | " + " | ".join(f"{r[f'{s}_map50']:.4f}" for s in ("dense", "sparse", "pruned", "finetuned")) + " |",
            f"| parameters | {r['params_before']:,} | | {r['params_after']:,} | -{1 - r['params_after'] / r['params_before']:.1%} |",
            f"| MACs | {r['macs_before'] / 1e6:.0f} M | | {r['macs_after'] / 1e6:.0f} M | -{1 - r['macs_after'] / r['macs_before']:.1%} |",
            f"| latency, batch 1 | {1e3 * r['latency_before']:.1f} ms | | {1e3 * r['latency_after']:.1f} ms | "
            f"{r['latency_before'] / r['latency_after']:.2f} times as fast |"]
    return (f"**The demo** (`make demo`, {r['seconds']:.0f} s of work; {machine(r)}; seed {r['seed']}; [JSON](docs/results/demo.json)): "
            "a half-width yolov3-tiny on drawn hands. Its settings were found on such pictures, and each stage trains on, which is why the "
            "finetuned network passes the dense one: read it as a check of the road, not as evidence of accuracy.\n\n" + "\n".join(rows))


def speed(read: dict) -> str:
    lines = []
    if t := read.get("train_step"):
        lines.append(f"| training step, yolov3-tiny, 8 images at 416, against plain fp32 NCHW eager | {t['speedup']:.2f} times as fast |")
        lines.append(f"| loader with {t['loader_workers']} workers, against what that step consumes | {t['loader_over_step']:.1f} times |")
    if e := read.get("evaluate"):
        lines.append(f"| NMS + matching + AP, {e['images']} images of {e['candidates']} candidates, against a loop over boxes, "
                     f"equal results | {e['ratio']:.1f} times as fast |")
    if not lines:
        return ""
    head = "**Speed of the tool** (`make bench`; ratios within one run; JSON in [docs/results](docs/results)):"
    return f"{head}\n\n| what | ratio |\n|---|---|\n" + "\n".join(lines)


def machine(r: dict) -> str:
    m = r["machine"]
    return f"{m['cores']} cores of {m['cpu']}, torch {m['torch']}"


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
