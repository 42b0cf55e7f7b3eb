"""How the time of graph, plan and surgery grows with the width of a network.

    python benchmarks/scaling.py --json docs/results/scaling.json

The network is made narrower and wider by changing every `filters` of its cfg (but those that feed heads).
Graph and plan follow channels, so their time grows with the channels; surgery copies weights, whose number
grows with their square.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import warnings

from stages import ROOT

from darkslim import commands
from darkslim.network import profile
from darkslim.network.cfg import Cfg, read_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.pruning.plan import plan
from darkslim.pruning.surgery import apply
from darkslim.report import machine

sys.path.insert(0, str(ROOT / "tests"))


def parser():
    p = commands.parser(__doc__.split("\n")[0])
    p.add_argument("--model_def", default="config/yolov3.cfg", help="the network")
    p.add_argument("--widths", type=float, nargs="+", default=[1, 2, 4], help="factors of every width")
    p.add_argument(
        "--percent", type=commands.fraction(), default=0.6, help="share of the prunable channels to cut"
    )
    p.add_argument("--strategy", default="slim", help="of test_prune.py")
    p.add_argument("--repeats", type=commands.count(1), default=3, help="runs, of which the median counts")
    return p


def main(args) -> dict:
    from random_cfgs import randomise

    rows = []
    for factor in args.widths:
        model = randomise(Darknet(widened(read_cfg(args.model_def), factor)), args.seed)
        runs = [timed(model, args) for _ in range(args.repeats)]
        channels = Channels(model.graph)
        rows.append(
            {
                "width": factor,
                "channels": sum(len(channels.ids[n]) for n in channels.convolutions),
                "classes": channels.count,
                "params": profile.count(model.graph).params,
                **{
                    key: statistics.median(r[key] for r in runs)
                    for key in ("graph", "classes_seconds", "plan", "surgery")
                },
            }
        )
        r = rows[-1]
        print(
            f"{factor:g}x: {r['channels']} channels, {r['classes']} classes, {r['params']:,} parameters: "
            f"graph {r['graph']:.3f} s, "
            f"channel classes {r['classes_seconds']:.3f} s, plan {r['plan']:.3f} s, surgery "
            f"{r['surgery']:.3f} s",
            flush=True,
        )
        del model
        gc.collect()
    return {
        "rows": rows,
        "model_def": args.model_def,
        "percent": args.percent,
        "strategy": args.strategy,
        "seed": args.seed,
        "machine": machine.describe(),
    }


def widened(cfg: Cfg, factor: float) -> Cfg:
    """A copy with every width times `factor`; what feeds a head keeps its own."""
    graph, wider = Graph(cfg), cfg.copy()
    fixed = {source for head in graph.heads for source in graph.nodes[head].inputs}
    for node in graph.nodes:
        if node.type == "convolutional" and node.index not in fixed:
            wider.layers[node.index].set("filters", max(1, round(node.shape[0] * factor)))
    return wider


def timed(model: Darknet, args) -> dict:
    """Seconds of each part."""
    marks = [time.perf_counter()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = Graph(model.cfg)
    marks.append(time.perf_counter())
    Channels(graph)
    marks.append(time.perf_counter())
    decision = plan(model, args.percent, args.strategy)
    marks.append(time.perf_counter())
    apply(model, decision)
    marks.append(time.perf_counter())
    return {
        key: b - a
        for key, a, b in zip(("graph", "classes_seconds", "plan", "surgery"), marks, marks[1:], strict=False)
    }


if __name__ == "__main__":
    raise SystemExit(commands.run(main, parser()))
