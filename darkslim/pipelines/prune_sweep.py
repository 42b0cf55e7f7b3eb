"""Many ratios: mAP and sizes over the share that is cut, as a table, a CSV file and a picture. No network is
written.
"""

from __future__ import annotations

from pathlib import Path

from ..base import files
from ..pruning import cut, importance
from ..pruning.sweep import sweep
from ..report import sweep_report
from .prune_job import Job, sizes, writes

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SAFE_DROP = 0.01  # mAP that the recommended ratio may lose


def try_ratios(job: Job) -> dict:
    """Tries ratios and says which one to take. mAP is that of the pictures that choose, since the rows are
    there to choose by.
    """
    s, pictures, rows = job.settings, job.pictures, []
    csv, png = writes(s).values()
    removal = cut.without_blocks(job.model, s.shortcuts, s.seed)
    start = removal.model if removal else job.model
    base = sizes(job.model) | {"map50": pictures.choose(job.model), "latency": job.timed([job.model])[0]}
    safe, ratios = 0.0, s.sweep or RATIOS
    for decision, compact in pictures.progress(
        sweep(start, ratios, **job.request), total=len(ratios), desc="sweeping"
    ):
        safe = importance.sparsity(decision.gammas).near_zero
        folded = pictures.choose(compact) if pictures.repair else None
        pictures.mend(job.model, decision, compact, removal)
        dense, small = job.timed([job.model, compact])
        rows.append(
            {
                "percent": decision.percent,
                "map50": pictures.choose(compact),
                "map50_folded": folded,
                **sizes(compact),
                "latency": base["latency"] * small / dense,
                "cut": decision.cut,
            }
        )  # a ratio: the machine may have changed its pace
    chosen = sweep_report.recommend(rows, base["map50"], SAFE_DROP, safe)
    title = f"{Path(s.model_def).name}, strategy {s.strategy}, score {s.score}"
    files.save_all(
        [
            files.Save(csv, sweep_report.sweep_csv(rows, chosen)),
            files.Save(png, sweep_report.sweep_figure(rows, chosen, base, title, allowed=SAFE_DROP)),
        ]
    )
    pictures.remember()
    job.observer.detail(sweep_report.sweep_table(rows, chosen))
    return {
        "rows": rows,
        "before": base,
        "recommended": None if chosen is None else rows[chosen]["percent"],
        "near_zero": safe,
        "allowed_drop": SAFE_DROP,
        "csv": csv,
        "picture": png,
        "strategy": s.strategy,
        "score": s.score,
        "fold": s.fold,
        "recalibrate": pictures.repair_batches if pictures.repair == "recalibrate" else 0,
        "reconstruct": s.reconstruct,
        "left_out": len(set(ratios)) - len(rows),
    }
