"""Writes the README's results and docs/RESULTS.md out of docs/results/*.json: no number there that no command
printed.

python benchmarks/readme.py    # rewrites the part of the README between the markers, and docs/RESULTS.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stages import ROOT

from darkslim import commands
from darkslim.base import files

START, END = "<!-- results: written by benchmarks/readme.py from docs/results -->", "<!-- end of results -->"


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
    won = read.get(
        "strategies"
    ) and "**Strategies at equal MACs** ([all of them](docs/RESULTS.md)). " + _winners(read["strategies"])
    parts = [bccd(read), won, recipes(read), exact(read, 0.6), promises(read), demo(read), speed(read)]
    return "\n\n".join([START, *(p for p in parts if p), END])


def full(folder: Path) -> str:
    """docs/RESULTS.md: the tables that are too long for the README."""
    read = load(folder)
    parts = [recipes(read), strategies(read), exact(read), promises(read)]
    return (
        "\n\n".join(
            [
                "# Results",
                "Written by `python benchmarks/readme.py` from the JSON in [results](results), as the "
                "README's "
                "results are.",
                *(p.replace("(docs/results/", "(results/") for p in parts if p),
            ]
        )
        + "\n"
    )


def load(folder: Path) -> dict:
    """Name -> what a benchmark wrote."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}


def bccd(read: dict) -> str:
    r = read.get("bccd")
    if not r:
        return ""
    rows = [
        "| stage | mAP50 | Platelets | RBC | WBC | parameters | MACs | latency, batch 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    whole = next(x for x in r["rows"] if "params_before" in x)
    for x in r["rows"]:
        params = x.get("params_after", whole["params_before"])
        macs = x.get("macs_after", whole["macs_before"])
        late = x.get("latency_after")
        late = f"{1e3 * x['latency_before']:.1f} -> {1e3 * late:.1f} ms" if late else ""
        classes = " | ".join(
            f"{x['per_class'][n]:.3f}" if "per_class" in x else "" for n in ("Platelets", "RBC", "WBC")
        )
        rows.append(
            f"| {x['stage']} | {x['map50']:.4f} | {classes} | {params / 1e6:.2f} M | {macs / 1e9:.3f} G | "
            f"{late} |"
        )
    return (
        "**Real pictures: BCCD blood cells**, yolov3-tiny at 416 from random weights, trained on the 292 "
        "images of trainval, "
        "measured on the 72 of test, which chose nothing (last weights of every stage; one run, seed "
        f"{r['seed']}; "
        f"{machine(r)}; `python benchmarks/bccd.py --control`, [JSON](docs/results/bccd.json)). Percent: "
        "share of the prunable "
        'channels that was cut; "pruned" is before any finetuning. Training goes on at each stage (60 epochs '
        "dense, 30 sparse, 30 finetuned), so "
        "a finetuned network has seen more pictures than the dense one. The "
        "control is the smallest network trained from random weights for 60 epochs. All of these are single "
        "runs on few pictures.\n\n" + "\n".join(rows)
    )


def strategies(read: dict) -> str:
    r = read.get("strategies")
    if not r:
        return ""
    head = (
        "**Strategies, folding and recalibration at equal MACs, before any finetuning** (test mAP50, which "
        "chose nothing; one run, "
        f"seed {r['seed']}; {machine(r)}; `python benchmarks/strategies.py`, "
        "[JSON](docs/results/strategies.json)). Two numbers a "
        "cell: as "
        f"folded / with batch norms re-estimated on {r['recalibrated_on']} training pictures. Networks "
        "without shortcuts have one "
        "row, since all "
        "strategies cut the same of them. At equal MACs `exact` pays for its carriers by cutting deeper."
    )
    rows = ["| network, MACs left | strategy | exact | interior | none |", "|---|---|---|---|---|"]
    for network, base in r["before"].items():
        rows.append(f"| **{network}**: {base['map50']:.4f}, {base['macs'] / 1e9:.3f} G | | | | |")
        mine = [x for x in r["rows"] if x["network"] == network]
        for target in sorted({x["target"] for x in mine}, reverse=True):
            rows += _strategy_rows(target, [x for x in mine if x["target"] == target])
    return "\n\n".join([head, "\n".join(rows), _winners(r), _scores(r)])


def _strategy_rows(target: float, mine: list[dict]) -> list[str]:
    """One row a strategy, or one for all where they are the same."""
    cells = {}
    for x in mine:
        cells.setdefault(x["strategy"], {})[x["fold"]] = f"{x['map50']:.3f} / {x['map50_recalibrated']:.3f}"
    lines = {
        strategy: " | ".join(found[fold] for fold in ("exact", "interior", "none"))
        for strategy, found in cells.items()
    }
    if len(set(lines.values())) == 1:
        return [f"| {target:.0%} | all four | {next(iter(lines.values()))} |"]
    return [f"| {target:.0%} | {strategy} | {line} |" for strategy, line in lines.items()]


def _winners(r: dict) -> str:
    """What kept most, network by network and target by target."""
    said = []
    for network in r["before"]:
        mine = [x for x in r["rows"] if x["network"] == network]
        for target in sorted({x["target"] for x in mine}, reverse=True):
            best = max(
                (x for x in mine if x["target"] == target),
                key=lambda x: max(x["map50"], x["map50_recalibrated"]),
            )
            again = best["map50_recalibrated"] > best["map50"]
            one = len(_strategy_rows(target, [x for x in mine if x["target"] == target])) == 1
            said.append(
                f"{network} at {target:.0%}: "
                + ("" if one else f"`{best['strategy']}` with ")
                + f"`{best['fold']}`"
                + (", recalibrated" if again else ", not recalibrated")
                + f" ({max(best['map50'], best['map50_recalibrated']):.3f})"
            )
    return (
        "What kept most, of strategies and ways of folding: "
        + "; ".join(said)
        + ". As far as sparsity training has made room, exact "
        "folding keeps the mAP, and where there are residual chains `slim` and `group` go on well after "
        "`normal` has collapsed. "
        "Beyond that no way keeps it before finetuning, narrow layers feel every carrier, and recalibration "
        "brings much of it back."
    )


def _scores(r: dict) -> str:
    names = list(dict.fromkeys(x["score"] for x in r["scores"]))
    rows = ["| score, `group`, `exact` | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for network in r["before"]:
        found = {x["score"]: x for x in r["scores"] if x["network"] == network}
        rows.append(
            f"| {network}, {next(iter(found.values()))['target']:.0%} | "
            + " | ".join(f"{found[n]['map50']:.3f} / {found[n]['map50_recalibrated']:.3f}" for n in names)
            + " |"
        )
    return (
        "The same for the scores (the networks were trained with the gamma penalty, which favours "
        "`gamma`):\n\n" + "\n".join(rows)
    )


def recipes(read: dict) -> str:
    """Recipes of slim.py at equal MACs and epochs, mean and spread over seeds."""
    r = read.get("recipes")
    if not r:
        return ""
    dense = ", ".join(f"{value:.4f}" for value in r["dense"].values())
    head = (
        f"**Recipes of `slim.py` at equal MACs and equal epochs** (drawn hands, the demo's network; "
        f"{len(r['seeds'])} seeds, mean +- half the range; test mAP50, which chose nothing; "
        f"{machine(r['run'])}; "
        "`python benchmarks/recipes.py`, [JSON](docs/results/recipes.json)). Every seed has one dense "
        "network "
        f"({r['epochs_dense']} epochs, mAP50 {dense}), from which each recipe spends {r['epochs_after']} "
        "more epochs, of "
        "sparsity training and finetuning together. Pruned: after the last cut, before its finetuning."
    )
    rows = [
        "| recipe | MACs left | mAP50 pruned | recovered | parameters | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for x in r["summary"]:
        rows.append(
            f"| `{x['recipe']}` | {x['target']:.0%} | {x['pruned']:.3f} +- {x['pruned_spread']:.3f} | "
            f"{x['recovered']:.3f} +- {x['recovered_spread']:.3f} | {x['params'] / 1e3:,.0f} k | "
            f"{x['seconds']:.0f} |"
        )
    return head + "\n\n" + "\n".join(rows)


def exact(read: dict, only: float | None = None) -> str:
    r = read.get("families")
    if not r:
        return ""
    rows = [
        "| cfg | classes, of them protected | cut | parameters | MACs | exact | interior | none | seconds | "
        "OpenCV |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    shown = [x for x in r["rows"] if only in (None, x["percent"])]
    for x in shown:
        d = x["differences"]
        first = (
            f"| `{x['cfg']}` | {x['classes']:,}, {x['protected']:,} |"
            if x["percent"] == shown[0]["percent"]
            else "| | |"
        )
        opencv = "not readable" if x["opencv"] is None else f"{x['opencv']:.0e}"
        rows.append(
            f"{first} {x['percent']:.0%} | {x['params_before'] / 1e6:.2f} -> {x['params_after'] / 1e6:.2f} "
            "M | "
            f"{x['macs_before'] / 1e9:.2f} -> {x['macs_after'] / 1e9:.2f} G | {d['exact']:.0e} | "
            f"{d['interior']:.0e} | "
            f"{d['none']:.0e} | "
            f"{x['seconds']:.1f} | {opencv} |"
        )
    return (
        f"**Full-size networks, cut by `{r['strategy']}`**, with random gammas and betas of both signs "
        "(`python "
        "benchmarks/families.py`, "
        f"[JSON](docs/results/families.json); {machine(r)}). Differences are those of compact and masked "
        "network, of the largest "
        "value, by way "
        "of folding; seconds are for graph, plan and surgery; the last column is how far OpenCV is from the "
        "masked network when it "
        "reads the written files with batch norms folded in."
        + ("" if only is None else " All ratios: [docs/RESULTS.md](docs/RESULTS.md).")
        + "\n\n"
        + "\n".join(rows)
    )


def promises(read: dict) -> str:
    lines = []
    if n := read.get("networks"):
        lines.append(
            f"- {n['networks']:,} random networks with random requests ({n['really_cut']:,} of them really "
            "cut, "
            f"{n['with_blocks_removed']:,} with residual blocks removed first, {n['with_budget']:,} with a "
            "budget): "
            f"{len(n['failures'])} "
            f"failures; compact and masked differ by at most {n['worst_error']:.0e} of the largest value, "
            "borders included "
            "(`python benchmarks/networks.py`, [JSON](docs/results/networks.json))."
        )
    if b := read.get("budgets"):
        lines.append(
            f"- {b['met']} of {len(b['rows'])} random budgets met within {b['within']:.0%}; the worst is "
            f"{max(abs(x['off']) for x in b['rows']):.1%} off (`python benchmarks/budgets.py`, "
            "[JSON](docs/results/budgets.json))."
        )
    if s := read.get("scaling"):
        said = "; ".join(
            f"{x['width']:g}x, {x['channels']:,} channels, {x['params'] / 1e6:,.0f} M parameters: "
            f"{x['graph'] + x['plan']:.2f} s and {x['surgery']:.2f} s"
            for x in s["rows"]
        )
        lines.append(
            "- The time of graph and plan grows about as the channels do, that of surgery as the weights "
            "that it copies. yolov3 "
            f"and wider: {said} "
            "(`python benchmarks/scaling.py`, [JSON](docs/results/scaling.json))."
        )
    if o := read.get("oracle"):
        worst = max(x["worst_layer"] for x in o["golden"].values())
        lines.append(
            f"- {len(o['golden'])} small networks, one a family, against Darknet's own C program: no layer "
            "differs by more than "
            f"{worst:.1e} of its largest value (`python benchmarks/oracle.py`, "
            "[JSON](docs/results/oracle.json))."
        )
    if k := read.get("kills"):
        lines.append(
            f"- {k['equal']} of {len(k['trials'])} runs of `slim.py` that were killed (SIGKILL at a drawn "
            "moment, "
            f"{len(k['stages_hit'])} different stages) and given the same line again ended with the weights "
            "of the "
            "uninterrupted run, bit for bit (`python benchmarks/kills.py`, [JSON](docs/results/kills.json))."
        )
    return "**Promises, counted:**\n\n" + "\n".join(lines) if lines else ""


def demo(read: dict) -> str:
    r = read.get("demo")
    if not r:
        return ""
    rows = [
        "| | dense | sparse | pruned | finetuned |",
        "|---|---|---|---|---|",
        "| mAP50 | "
        + " | ".join(f"{r[f'{s}_map50']:.4f}" for s in ("dense", "sparse", "pruned", "finetuned"))
        + " |",
        f"| parameters | {r['params_before']:,} | | {r['params_after']:,} | "
        f"-{1 - r['params_after'] / r['params_before']:.1%} |",
        f"| MACs | {r['macs_before'] / 1e6:.0f} M | | {r['macs_after'] / 1e6:.0f} M | "
        f"-{1 - r['macs_after'] / r['macs_before']:.1%} "
        "|",
        f"| latency, batch 1 | {1e3 * r['latency_before']:.1f} ms | | {1e3 * r['latency_after']:.1f} ms | "
        f"{r['latency_before'] / r['latency_after']:.2f} times as fast |",
    ]
    return (
        f"**The demo** (`make demo`, {r['seconds']:.0f} s of work; {machine(r)}; seed {r['seed']}; "
        "[JSON](docs/results/demo.json)): "
        "a half-width yolov3-tiny on drawn hands. Its settings were found on such pictures, and each stage "
        "trains on, which is why "
        "the "
        "finetuned network passes the dense one: read it as a check of the road, not as evidence of "
        "accuracy.\n\n" + "\n".join(rows)
    )


def speed(read: dict) -> str:
    lines = []
    if t := read.get("train_step"):
        lines.append(
            "| training step, yolov3-tiny, 8 images at 416, against plain fp32 NCHW eager | "
            f"{t['speedup']:.2f} times as fast |"
        )
        lines.append(
            f"| loader with {t['loader_workers']} workers, against what that step consumes | "
            f"{t['loader_over_step']:.1f} times "
            "|"
        )
    if e := read.get("evaluate"):
        lines.append(
            f"| NMS + matching + AP, {e['images']} images of {e['candidates']} candidates, against a loop "
            "over boxes, "
            f"equal results | {e['ratio']:.1f} times as fast |"
        )
    if not lines:
        return ""
    head = (
        "**Speed of the tool** (`make bench`; ratios within one run; JSON in [docs/results](docs/results)):"
    )
    return f"{head}\n\n| what | ratio |\n|---|---|\n" + "\n".join(lines)


def machine(r: dict) -> str:
    m = r["machine"]
    return f"{m['cores']} cores of {m['cpu']}, torch {m['torch']}"


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
