"""Layers cut alone: what each costs, as a table, a CSV file and a picture, and as a bound for a cut of all of
them.
"""

from __future__ import annotations

from pathlib import Path

from ..base import files
from ..base.errors import RequestError
from ..network.darknet import Darknet
from ..pruning.layer_losses import SHARES, LayerLoss, floors, layer_losses
from ..report import layers_report
from ..training.objective import plain_loss
from .prune_job import Job, writes

BATCHES = 1  # of training pictures, on which the loss is taken


def layers_alone(job: Job) -> dict:
    """Cuts every layer alone by some shares and says what that costs. No network is written."""
    s = job.settings
    csv, png = writes(s).values()
    rows = losses(job, s.sensitivity or SHARES)
    title = f"{Path(s.model_def).name}, strategy {s.strategy}, score {s.score}"
    files.save_all(
        [
            files.Save(csv, layers_report.layers_csv(rows)),
            files.Save(png, layers_report.layers_figure(rows, title)),
        ]
    )
    job.pictures.remember()
    job.observer.detail(layers_report.layers_table(rows))
    return {
        "rows": [vars(row) for row in rows],
        "pictures": sum(len(images) for images, _ in job.pictures.batches[:BATCHES]),
        "csv": csv,
        "picture": png,
        "strategy": s.strategy,
        "score": s.score,
    }


def losses(job: Job, shares=SHARES) -> list[LayerLoss]:
    """The rise of the detection loss on training pictures, for every layer and share.

    Raises:
        RequestError: heads that have no loss here.
    """
    for head in job.model.heads:
        if head.kind != "yolo":
            place = job.model.cfg.layers[head.index].place
            raise RequestError(place, f"[{head.kind}], whose loss is not known here", "[yolo] heads")
    batches = job.pictures.batches[:BATCHES]

    def loss(model: Darknet) -> float:
        model.to(job.device)
        found = plain_loss(model, batches, job.device)
        model.cpu()
        return found

    return layer_losses(
        job.model,
        loss,
        shares,
        strategy=job.settings.strategy,
        score=job.settings.score,
        context=job.context,
        progress=job.pictures.progress,
    )


def least_widths(job: Job) -> dict[int, float]:
    """Layer -> the share of its channels that stays, so that no layer alone costs more than
    --max-layer-loss.
    """
    return floors(losses(job), job.settings.max_layer_loss)
