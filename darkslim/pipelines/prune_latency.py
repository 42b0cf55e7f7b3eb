"""The plan that meets a time: by a table of layer times, put right by timing the network that it leads to."""

from __future__ import annotations

import warnings
from pathlib import Path

from .. import latency
from ..network.darknet import Darknet
from ..network.graph import Graph
from ..pruning import surgery
from ..pruning.budget import Target, amount
from ..pruning.plan import PrunePlan, plan
from .prune_job import Job

FAR = (
    1.3  # times that layers may add up to more or less than the network takes, before they are measured again
)
TIMINGS, CLOSE = (
    3,
    0.03,
)  # how often a target is timed and put right at most; the share of it that is near enough


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
    target = Target("latency", value, True, lambda graph: table.seconds(Graph(graph.cfg, *size)))
    for attempt in range(TIMINGS + 1):
        decision = plan(model, target=target, **job.request)
        if attempt < TIMINGS:
            compact = surgery.apply(model, decision, job.settings.fold)
            dense, small = job.timed([model, compact])
            seconds = now * small / dense  # a ratio: the machine may have changed its pace
            said = zip(
                ("estimated", "timed", "wanted"), (decision.reached, seconds, decision.wanted), strict=True
            )
            job.observer.say(", ".join(f"{what} {amount('latency', value)}" for what, value in said))
            if abs(seconds / decision.wanted - 1) <= CLOSE:
                break
            table.calibrate(seconds, Graph(compact.cfg, *size))
    return decision


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
