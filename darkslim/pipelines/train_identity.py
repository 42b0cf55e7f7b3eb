"""What a resumed training must share with the one that it goes on with."""

from __future__ import annotations

import hashlib

from ..data.check import Report
from ..network.darknet import Darknet
from .settings import TrainSettings

IDENTITY = (
    "epochs",
    "batch_size",
    "resize",
    "learning_rate",
    "schedule",
    "ema",
    "clip",
    "freeze",
    "sr",
    "s",
    "sr_penalty",
    "sr_schedule",
    "strategy",
    "int8",
    "multiscale_training",
    "vflip",
    "mosaic",
    "balance",
    "t_cfg",
    "t_weights",
    "t_kl",
    "t_cwd",
    "amp",
    "seed",
)


def identity(settings: TrainSettings, model: Darknet, reports: dict[str, Report], size) -> dict:
    """What a resumed run must share with the one that it goes on with."""
    content = {f"the data of {key}": fingerprint(report) for key, report in reports.items()}
    return {
        "cfg hash": model.cfg.hash[:16],
        **content,
        "classes": model.heads[0].classes,
        "img_size": list(size),
        **{f"--{name}": getattr(settings, name) for name in IDENTITY},
    }


def fingerprint(report: Report) -> str:
    """A hash of the paths, sizes and boxes of a data set."""
    parts = (
        "\n".join(report.images).encode(),
        report.sizes.tobytes(),
        report.rows.tobytes(),
        report.offsets.tobytes(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
