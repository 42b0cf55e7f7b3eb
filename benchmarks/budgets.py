"""Are budgets met? Random networks of config/, random targets, strategies, floors and roundings.

    python benchmarks/budgets.py --json docs/results/budgets.json

Reached is what the written cfg counts, carriers included, over what was asked for. Where that is off by more
than 2%, all thresholds of the ranking are tried one by one, to see whether the request could have been met.
"""

from __future__ import annotations

import random
import sys
import time
import warnings

import numpy as np
from stages import ROOT

from darkslim import commands
from darkslim.network import profile
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.channels import STRATEGIES
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.pruning.budget import NEAR, Target
from darkslim.pruning.plan import plan
from darkslim.pruning.surgery import apply
from darkslim.report import machine

sys.path.insert(0, str(ROOT / "tests"))


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--pairs", type=commands.count(1), default=20, help="how many (cfg, target) pairs")
    return p


def main(args) -> dict:
    draw = random.Random(args.seed)
    names = sorted(p.stem for p in (ROOT / "config").glob("*.cfg") if not p.name.startswith("prune_"))
    rows = []
    for number in range(args.pairs):
        rows.append(
            one(
                draw.choice(names),
                Target(draw.choice(("params", "macs")), round(draw.uniform(0.1, 0.9), 2)),
                number,
                strategy=draw.choice(STRATEGIES),
                layer_keep=draw.choice((0.01, 0.05, 0.1)),
                round_to=draw.choice((1, 4, 8, 16)),
            )
        )
        show(rows[-1])
    met = sum(abs(r["off"]) <= NEAR for r in rows)
    print(f"{met} of {len(rows)} within {NEAR:.0%}")
    return {"rows": rows, "met": met, "within": NEAR, "seed": args.seed, "machine": machine.describe()}


def show(r: dict) -> None:
    best = "" if r["nearest"] is None else f" (nearest threshold: {r['nearest']:+.3%})"
    print(
        f"{r['cfg']:22} {r['kind']:6} {r['target']:.2f} {r['strategy']:8} layer_keep {r['layer_keep']:.2f} "
        "round_to "
        f"{r['round_to']:2}: {r['off']:+.3%} of the target, cut {r['percent']:.1%}{best}  "
        f"{r['seconds']:.1f} s",
        flush=True,
    )


def one(name: str, target: Target, number: int, **request) -> dict:
    """One network and one request."""
    from random_cfgs import randomise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomise(Darknet(read_cfg(ROOT / "config" / f"{name}.cfg")), number)
        start = time.perf_counter()
        decision = plan(model, target=target, **request)
        seconds = time.perf_counter() - start
        counted = getattr(profile.count(Graph(parse_cfg(apply(model, decision).cfg.to_bytes()))), target.kind)
    off = counted / decision.wanted - 1
    return {
        "cfg": name,
        "kind": target.kind,
        "target": target.value,
        **request,
        "wanted": decision.wanted,
        "counted": counted,
        "off": off,
        "percent": decision.percent,
        "nearest": None if abs(off) <= NEAR else nearest(model, target, decision.wanted, request),
        "seconds": seconds,
        "parameters_seed": number,
    }


def nearest(model: Darknet, target: Target, wanted: float, request: dict) -> float:
    """The least that any share of the channels, in steps of half a percent, is off."""
    offs = []
    for percent in np.arange(0, 1.0001, 0.005):
        compact = apply(model, plan(model, float(min(percent, 1)), **request))
        offs.append(getattr(profile.count(compact.graph), target.kind) / wanted - 1)
    return min(offs, key=abs)


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
