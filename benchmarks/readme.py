"""Writes the README's table and docs/RESULTS.md out of docs/results/*.json: no number there that no command
printed.

python benchmarks/readme.py    # rewrites the part of the README between the markers, and docs/RESULTS.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import result_tables as tables
from stages import ROOT

from darkslim import commands
from darkslim.base import files

START, END = "<!-- results: written by benchmarks/readme.py from docs/results -->", "<!-- end of results -->"
WHOLE = (
    "bccd",
    "loss_rules",
    "counting",
    "repairs",
    "compression",
    "packing",
    "published",
    "recipes",
    "strategies",
    "scores",
    "families",
    "promises",
    "demo",
    "cut_speed",
    "deployed",
    "knapsack",
    "detect_speed",
    "speed",
)
OF_ALL = ("promises", "speed", "repairs", "compression")  # tables of several files
FROM = {
    "scores": "strategies",
    "cut_speed": "speed",
    "knapsack": "deployed",
}  # the file, where it has another name than the table


def parser() -> argparse.ArgumentParser:
    return commands.parser(__doc__.split("\n")[0])


def main(args) -> dict:
    path, folder = ROOT / "README.md", ROOT / "docs/results"
    before, rest = path.read_text().split(START)
    files.save(path, before + section(folder) + rest.split(END)[1])
    files.save(ROOT / "docs/RESULTS.md", full(folder))
    print(f"{path.name} and docs/RESULTS.md: results written")
    return {}


def section(folder: Path) -> str:
    """The part of the README between the markers, markers included."""
    read = load(folder)
    table = tables.bccd(read["bccd"])
    kept = [[row[i] for i in (0, 1, 5, 6, 7)] for row in table.rows]
    parts = [START, tables.Table("", (), kept).markdown()]
    if "repairs_bccd" in read:
        said = "Trained plainly, then cut and repaired without any training (`--score repair`, one more run):"
        parts += [said, tables.without_training(read["repairs_bccd"]).markdown()]
    if "deployed" in read:
        parts.append(on_the_device(read["deployed"]))
    return "\n\n".join([*parts, END])


def on_the_device(r: dict) -> str:
    """One sentence: the time of the network as it trains, and cut, in the best engine and in 8 bits."""
    rows = {(row["network"], row["engine"]): row for row in r["rows"] if "seconds" in row}
    slim = {engine: row for (name, engine), row in rows.items() if name == "slim"}
    plain = {engine: row for engine, row in slim.items() if not engine.endswith(("int8", "bf16"))}
    best = min(plain, key=lambda engine: plain[engine]["with_nms"])
    scores = {(x["network"], x["precision"]): x["map50"] for x in r["precisions"]}
    shown = (rows["dense", "torch"], slim[best], slim["openvino-int8"])
    eager, cut, small = (f"{1e3 * row['with_nms']:.0f} ms" for row in shown)
    left, eight = r["macs"][1] / r["macs"][0], scores["slim", "int8 in openvino"]
    return (
        "Deployed, one more run, without any training after the cut, decoding and NMS included: "
        f"{eager} in PyTorch ({r['dense_map50']:.4f}), {cut} cut to {left:.0%} of the MACs in {best} "
        f"({r['slim_map50']:.4f}), {small} in 8 bits in OpenVINO ({eight:.4f})."
    )


def full(folder: Path) -> str:
    """docs/RESULTS.md: every table."""
    read = load(folder)
    parts = []
    for name in WHOLE:
        make = getattr(tables, name)
        if name in OF_ALL:
            parts.append(make(read).section())
        elif (r := read.get(FROM.get(name, name))) is not None:
            parts.append(make(r).section())
    head = "# Results\n\nWritten by `python benchmarks/readme.py` from the JSON in [results](results)."
    return "\n\n".join([head, *parts]) + "\n"


def load(folder: Path) -> dict:
    """Name -> what a benchmark wrote."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
