"""Several scores tried at one request: each is cut and repaired as asked, and judged on the pictures that
choose.
"""

from __future__ import annotations

from ..base.errors import RequestError
from ..evaluation.resampling import Hits, better, resampled
from ..pruning import surgery
from ..pruning.blocks import Removal
from ..pruning.plan import PrunePlan
from ..report.tables import right
from .prune_job import Job, sizes

TRIED = ("repair", "gamma", "l1", "depgraph", "taylor")  # of those that cannot be told apart, the first
SURE = 0.9  # share of draws of the pictures in which a better one is better


def best_of(job: Job, removal: Removal | None, decide) -> tuple[PrunePlan, list[dict]]:
    """The plan by the score whose network keeps most, and a row for each score: score, map50 on the pictures
    that choose, params, macs, behind (the share of draws of these pictures in which the best one is better).

    The pictures that choose are few. What is best on them only by chance is not preferred: the first score
    that the best one does not surely beat is taken. Where the request is a loss of mAP, all lose as much as
    is allowed, and the one with the fewest MACs wins.

    Args:
        decide: (job, removal) -> plan, for a job that names one score.

    Raises:
        RequestError: no score meets the request.
    """
    drops, rows, plans, refused = job.settings.max_map_drop is not None, [], {}, None
    hits: dict[str, Hits] = {}
    for name in TRIED:
        one = job.changed(score=name)
        try:
            decision = decide(one, removal)
        except RequestError as e:
            refused = e
            continue
        compact = surgery.apply(removal.model if removal else job.model, decision, job.settings.fold)
        job.pictures.mend(job.model, decision, compact, removal)
        result = job.pictures.looked_at(compact)
        rows.append({"score": name, "map50": result.map50, **sizes(compact)})
        plans[name], hits[name] = decision, result.hits
        job.observer.say(f"score {name}: mAP50 {rows[-1]['map50']:.4f}, {rows[-1]['macs'] / 1e9:.3f} GMACs")
    if refused is not None and not rows:
        raise refused
    best = max(rows, key=lambda row: row["map50"])
    maps = resampled([hits[row["score"]] for row in rows]).T
    for row, its in zip(rows, maps, strict=True):
        row["behind"] = better(maps[rows.index(best)], its)
    if drops:
        best = min(rows, key=lambda row: row["macs"])
    else:
        best = next(row for row in rows if row["behind"] < SURE)
    job.observer.detail(table(rows, best["score"]))
    return plans[best["score"]], rows


def table(rows: list[dict], best: str) -> str:
    """One line a score, the one that is taken marked."""
    lines = [["", "score", "mAP50", "best is surely better", "parameters", "MACs"]]
    for row in rows:
        taken = "taken" if row["score"] == best else ""
        sizes = [f"{row['params']:,}", f"{row['macs'] / 1e9:.3f} G"]
        lines.append([taken, row["score"], f"{row['map50']:.4f}", f"{row['behind']:.0%}", *sizes])
    return right(lines)
