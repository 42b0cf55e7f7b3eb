"""Writes the README's table and docs/RESULTS.md out of docs/results/*.json: no number there that no command
printed.

python benchmarks/readme.py    # rewrites the part of the README between the markers, and docs/RESULTS.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import accuracy_tables
import result_tables
import speed_tables
from stages import ROOT

from darkslim import commands
from darkslim.base import files

START, END = "<!-- results: written by benchmarks/readme.py from docs/results -->", "<!-- end of results -->"
MODULES = (accuracy_tables, result_tables, speed_tables)
WHOLE = (
    "accuracy",
    "finetune_rate",
    "loss_rules",
    "counting",
    "repairs",
    "reconstruction",
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
    "where_time_goes",
    "eight_bits",
    "knapsack",
    "detect_speed",
    "speed",
)
DEPLOYED = (
    "Without sparsity training and finetuning: another training on blood cells, cut and repaired (`--score "
    "repair --reconstruct 8`), and deployed on a processor with AMX; batch 1, decoding and suppression as in "
    "detect.py included:"
)
OF_ALL = ("promises", "speed", "repairs", "compression", "accuracy")  # tables of several files
FROM = {
    "scores": "strategies",
    "cut_speed": "speed",
    "knapsack": "deployed",
    "eight_bits": "deployed",
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
    parts = [START, accuracy_tables.glance(read).markdown()]
    if "deployed" in read:
        parts += [DEPLOYED, speed_tables.on_the_device(read["deployed"]).markdown()]
    if "compression_bccd" in read:
        parts.append(result_tables.packed_glance(read["compression_bccd"]))
    return "\n\n".join([*parts, END])


def full(folder: Path) -> str:
    """docs/RESULTS.md: every table."""
    read = load(folder)
    parts = []
    for name in WHOLE:
        make = next(getattr(m, name) for m in MODULES if hasattr(m, name))
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
