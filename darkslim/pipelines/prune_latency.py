"""The plan that meets a time: by a table of layer times, put right by timing the network that it leads to."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

from .. import latency
from ..network.darknet import Darknet
from ..network.graph import Graph
from ..pruning import surgery
from ..pruning.budget import Target, amount
from ..pruning.plan import PrunePlan, plan
from .prune_job import Job

# times that layers may add up to more or less than the network takes, before they are measured again
FAR = 1.3
# how often a target is timed and put right at most; the share of it that is near enough
TIMINGS, CLOSE = 6, 0.03


def quick_enough(job: Job, model: Darknet) -> PrunePlan:
    """The plan for a target latency.

    Args:
        model: the job's network without the removed blocks.
    """
    size = job.size
    plan(
        model, 0.0, job.settings.strategy
    )  # a network that cannot be pruned is refused now rather than after measuring
    table, now = measured_table(job, model)
    _, value, absolute = job.settings.target
    if not absolute:
        given, start = (1.0, 1.0) if model is job.model else job.timed([job.model, model])
        value *= now * given / start
    asked, tried = value, []  # (what the table was asked for, what was timed, the plan)
    for _ in range(TIMINGS):
        target = Target("latency", asked, True, lambda graph: table.seconds(Graph(graph.cfg, *size)))
        decision = plan(model, target=target, **job.request)
        compact = surgery.apply(model, decision, job.settings.fold)
        dense, small = job.timed([model, compact])
        seconds = now * small / dense  # a ratio: the machine may have changed its pace
        told = {"estimated": decision.reached, "timed": seconds, "wanted": value}
        job.observer.say(", ".join(f"{what} {amount('latency', t)}" for what, t in told.items()))
        tried.append((asked, seconds, decision))
        if abs(seconds / value - 1) <= CLOSE or asked >= now and seconds <= value:
            break
        asked = min(next_target([(one, took) for one, took, _ in tried], value), now)
    _, seconds, decision = min(tried, key=lambda one: abs(one[1] / value - 1))
    return replace(decision, target=replace(decision.target, value=value), wanted=value, reached=seconds)


def next_target(tried: list[tuple[float, float]], wanted: float) -> float:
    """What to ask the table for next, so that `wanted` is timed.

    Between the nearest that was too quick and the nearest that was too slow, on the straight line through
    both in logarithms; where all lie on one side, as much more or less as the last one missed.

    Args:
        tried: (asked, timed) so far.
    """
    below = [one for one in tried if one[1] <= wanted]
    above = [one for one in tried if one[1] > wanted]
    if below and above:
        (low, quick), (high, slow) = max(below), min(above)
        if low < high and slow > quick:
            share = math.log(wanted / quick) / math.log(slow / quick)
            return low * (high / low) ** min(max(share, 0.1), 0.9)
    asked, took = tried[-1]
    return asked * wanted / took


def measured_table(job: Job, model: Darknet) -> tuple[latency.LatencyTable, float]:
    """Times of layers here, measured unless they lie in the cache; and the seconds that the network takes, to
    which they are scaled.

    Layers are timed in PyTorch whatever the engine: other engines join layers, so that a layer alone says
    nothing. The table tells how layers compare, whole networks in the engine say how long it takes.
    """
    graph, path = Graph(model.cfg, *job.size), job.settings.latency_table
    table = latency.LatencyTable(
        Path(path) if path else None, device=job.device, progress=job.observer.progress
    )
    for again in (False, True):
        table.measure(graph, again=again)
        (whole,), layers = job.timed([model]), table.seconds(graph)
        if 1 / FAR < layers / whole < FAR or job.settings.engine != "torch":
            break
    else:
        warnings.warn(
            f"the layers add up to {layers * 1e3:.1f} ms, and the network takes {whole * 1e3:.1f} ms: is "
            "the machine busy with "
            "something else? What is reached will be a rough guess",
            stacklevel=2,
        )
    table.save()
    table.calibrate(whole, graph)
    return table, whole
