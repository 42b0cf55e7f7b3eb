"""The way of folding, found by trying: with a repair after the cut, constants that cut channels leave are
better folded exactly in some networks and left out at the borders in others, where carriers cost more than
they save.
"""

from __future__ import annotations

from ..pruning import surgery
from ..pruning.blocks import Removal
from .cut_settings import AUTO
from .prune_job import Job, sizes
from .prune_scores import TRIED

WAYS = ("exact", "interior")
EQUAL = 0.001  # of mAP50 on the pictures that choose: exact is kept unless the other gains more


def way_of_folding(job: Job, removal: Removal | None, decide) -> Job:
    """The job with a way of folding in place of `auto`. Without a repair, or without pictures, it is exact:
    the only one that promises what the masked network gives.

    Args:
        decide: (job, removal) -> plan.
    """
    s = job.settings
    if s.fold != AUTO:
        return job
    if job.pictures.repair is None or job.pictures.choosing is None:
        job.observer.say("--fold exact: without a repair and pictures there is nothing to choose by")
        return job.changed(fold="exact")
    found = {}
    for way in WAYS:
        score = TRIED[0] if s.score == AUTO else s.score
        one = job.changed(fold=way, score=score, round_to=1 if s.round_to == AUTO else s.round_to)
        decision = decide(one, removal)
        compact = surgery.apply(removal.model if removal else job.model, decision, way)
        job.pictures.mend(job.model, decision, compact, removal)
        found[way] = job.pictures.choose(compact)
        macs = sizes(compact)["macs"] / 1e9
        job.observer.say(f"folding {way}: mAP50 {found[way]:.4f} repaired, {macs:.3f} GMACs")
    best = WAYS[1] if found[WAYS[1]] > found[WAYS[0]] + EQUAL else WAYS[0]
    job.observer.say(f"--fold {best}")
    return job.changed(fold=best)
