"""Writes the table of docs/reliability.md: each promise, its tests, and the figure of the last long run.

    python benchmarks/reliability.py

The figures come out of docs/results/faults.json, fuzz*.json and kills.json; a run that is not there is said
to be missing. tests/test_reliability.py holds the page to this script.
"""

from __future__ import annotations

import json
from pathlib import Path

from stages import ROOT

from darkslim import commands
from darkslim.base import files

PAGE = ROOT / "docs/reliability.md"
START, END = (
    "<!-- written by benchmarks/reliability.py from docs/results -->",
    "<!-- end of what is written -->",
)


def parser():
    return commands.parser(__doc__.split("\n")[0])


def main(args) -> dict:
    before, rest = PAGE.read_text().split(START)
    files.save(PAGE, before + section(ROOT / "docs/results") + rest.split(END)[1])
    print("docs/reliability.md: written")
    return {}


def section(folder: Path) -> str:
    """The tables with the markers around them, out of the JSON files of a folder."""
    read = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}
    rows = ["| promise | tests | figure |", "|---|---|---|"]
    for promise, tests, figure in PROMISES:
        links = ", ".join(f"[{name.removeprefix('test_')}](../tests/{name}.py)" for name in tests)
        rows.append(f"| {promise} | {links} | {figure(read)} |")
    return "\n".join([START, "", *rows, *fuzz_table(read), "", END])


def broken_off(*kinds: str):
    """Of so many trials of these kinds, so many went as promised."""

    def figure(read: dict) -> str:
        if "faults" not in read:
            return "no run yet: `make faults`"
        rows = [read["faults"]["summary"][kind] for kind in kinds]
        good, trials = (sum(r[key] for r in rows) for key in ("good", "trials"))
        return f"{good} of {trials} ([JSON](results/faults.json))"

    return figure


def fuzz_rows(read: dict) -> list[tuple[str, dict]]:
    """(file, row) of every fuzzed reader; a later file, run after something was put right, comes behind."""
    return [(name, row) for name in sorted(read) if name.startswith("fuzz") for row in read[name]["rows"]]


def fuzzed(*names: str):
    """Files that these readers met, and escapes."""

    def figure(read: dict) -> str:
        rows = {row["target"]: row for _, row in fuzz_rows(read)}
        if not rows:
            return "no run yet: `make fuzz`"
        mine = [rows[name] for name in names if name in rows]
        return f"{sum(r['executions'] for r in mine):,} files, {sum(len(r['escapes']) for r in mine)} escapes"

    return figure


def fuzz_table(read: dict) -> list[str]:
    rows = ["", "| reader | files | seconds | escapes | JSON |", "|---|---|---|---|---|"]
    for name, r in fuzz_rows(read):
        found = f"{len(r['escapes'])}" + (f" ({r['escapes'][0]['what'][:40]})" if r["escapes"] else "")
        link = f"[{name}](results/{name}.json)"
        rows.append(f"| {r['target']} | {r['executions']:,} | {r['seconds']} | {found} | {link} |")
    return rows if len(rows) > 3 else []


def slim_kills(read: dict) -> str:
    if "kills" not in read:
        return "no run yet: `python benchmarks/kills.py`"
    return f"{read['kills']['equal']} of {len(read['kills']['trials'])} ([JSON](results/kills.json))"


def none(read: dict) -> str:
    return ""


PROMISES = [
    ("Every one of the 109 numbered faults is met in order", ("test_bad_running",), none),
    (
        "A broken or hostile cfg or `.data` file is one line and exit 2",
        ("test_bad_cfgs",),
        fuzzed("cfg", "data"),
    ),
    (
        "So is a broken `.weights` or `.pth`, flipped bits too, and no code in it ever runs",
        ("test_bad_weights", "test_disk"),
        fuzzed("weights", "pth"),
    ),
    (
        "So are broken lists, pictures and labels, counted, before the first epoch",
        ("test_bad_data", "test_broken_pictures", "test_hostile_text"),
        fuzzed("list", "labels"),
    ),
    (
        "So are broken annotations that are converted",
        ("test_converter", "test_converter_layouts", "test_data_matfile"),
        fuzzed("mat", "voc", "coco", "yaml"),
    ),
    (
        "Requests that cannot be met change nothing; no output is put over an input",
        ("test_bad_requests", "test_outputs"),
        none,
    ),
    (
        "SIGKILL at any moment loses nothing, and the run goes on to the same weights",
        ("test_bad_running", "test_disk"),
        broken_off("SIGKILL"),
    ),
    ("`slim.py` ends the same after any kill", ("test_slim_command",), slim_kills),
    (
        "SIGINT and SIGTERM save and exit 130, while evaluating too",
        ("test_bad_running", "test_train_command"),
        broken_off("SIGINT", "SIGTERM"),
    ),
    ("A full disk: old files whole, temporaries gone, exit 2", ("test_disk",), broken_off("full disk")),
    (
        "What is written was read back and compared; a failed proof leaves nothing, exit 3",
        ("test_test_prune_command", "test_pruning_verify"),
        none,
    ),
    (
        "A dead loader process, a dead rank, no memory: a line, and no waiting for ever",
        ("test_bad_running", "test_data_loader"),
        none,
    ),
]


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
