"""The promise that compact equals masked, on thousands of random networks.

    python benchmarks/networks.py --networks 5000 --json docs/results/networks.json

Each seed is one random cfg (chains, branches, routes of 1 to 6, groups, slices, nested and unequal shortcuts,
one to three heads), random parameters of both signs, and one random request: strategy, score, ratio, floor,
rounding, residual blocks, budget. Checked are the outputs in float64, borders included, parameters and MACs
against the written cfg, floors and widths. The checks are those of the tests (tests/pruning_draws.py).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from stages import ROOT

from darkslim import commands
from darkslim.report import machine

sys.path.insert(0, str(ROOT / "tests"))


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--networks", type=commands.count(1), default=5000, help="seeds 0 to this")
    p.add_argument("--n_cpu", type=commands.count(1, 256), default=2, help="processes")
    return p


def one(seed: int) -> tuple[int, dict | None, str | None]:
    """(seed, what came of it, the failure)."""
    import torch
    from pruning_draws import check

    torch.set_num_threads(1)
    try:
        return seed, check(seed), None
    except Exception as e:  # any error of any seed is a finding
        return seed, None, f"{type(e).__name__}: {e}"


def main(args) -> dict:
    began, done, failures = time.perf_counter(), [], {}
    with ProcessPoolExecutor(args.n_cpu) as pool:
        for seed, outcome, failure in commands.progress(
            pool.map(one, range(args.networks), chunksize=16), total=args.networks
        ):
            if failure:
                failures[seed] = failure
                print(f"seed {seed}: {failure}", flush=True)
            elif outcome:
                done.append(outcome)
    cut = [o for o in done if o["cut"]]
    worst = max(done, key=lambda o: o["error"])
    result = {
        "networks": args.networks,
        "nothing_prunable": args.networks - len(done) - len(failures),
        "really_cut": len(cut),
        "failures": failures,
        "worst_error": worst["error"],
        "worst_seed": worst["seed"],
        "strategies": dict(Counter(o["strategy"] for o in cut)),
        "scores": dict(Counter(o["score"] for o in cut)),
        "with_blocks_removed": sum(o["blocks"] > 0 for o in done),
        "with_budget": sum(o["target"] is not None for o in done),
        "seconds": time.perf_counter() - began,
        "machine": machine.describe(),
    }
    print(
        f"{args.networks} networks, {len(cut)} really cut: {len(failures)} failures, the largest difference "
        f"is {worst['error']:.1e} of "
        f"the largest value (seed {worst['seed']}); {result['seconds']:.0f} s"
    )
    return result


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
