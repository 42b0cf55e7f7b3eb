"""A training under further constraints, within another job: masks, surgery, shared values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from ..base.observer import Observer, Part
from ..base.signals import StopFlag
from ..network import weights
from ..network.darknet import Darknet
from .settings import Optimization, TrainSettings
from .train import train


def trained(
    settings,
    epochs: int,
    path: Path,
    constrain: Callable,
    observer: Observer,
    stop: StopFlag,
    solved: bool = False,
) -> tuple[Darknet, list[dict]]:
    """Trains the network of a job and writes it; (what was kept, its history).

    Args:
        settings: of the job: Optimization, Compressing, logdir and resume. path: where the weights go.
        constrain, solved: as in `train`.
    """
    asked = TrainSettings(
        **{f.name: getattr(settings, f.name) for f in fields(Optimization)},
        **settings.shared(),
        model_def=settings.model_def,
        data_config=settings.data_config,
        pretrained_weights=settings.weights,
        epochs=epochs,
        keep="last",
        evaluation_interval=0,
        checkpoint=str(path),
        logdir=settings.logdir,
        resume=settings.resume,
    )
    result = train(asked, Part(observer), stop, constrain, solved)
    return weights.load_model(settings.model_def, path), result["history"]
