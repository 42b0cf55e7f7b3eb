"""What the parts of a cut share: settings, pictures, the network, and what is counted and timed of it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from ..base.errors import RequestError
from ..base.observer import Observer
from ..latency import Timing
from ..network import profile, weights
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..pruning import importance
from .cut_settings import AUTO, PruneSettings
from .engine_times import time_under
from .pictures import Pictures


@dataclass(frozen=True)
class Job:
    """What the parts of a cut share.

    Attributes:
        model: the network as it was given: shares and losses are of it.
        floors: layer -> the share of its channels that stays at least; None: no more than --layer_keep.
    """

    settings: PruneSettings
    observer: Observer
    pictures: Pictures
    device: torch.device
    model: Darknet
    floors: dict[int, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) at which mAP and latency are measured."""
        return input_size(self.model.graph, self.settings.img_size)

    @cached_property
    def context(self) -> importance.Context:
        """What scores look at; what they come to is kept for the plans of this job."""
        return importance.Context(
            self.settings.seed, self.pictures.batches, self.device, weakref.WeakKeyDictionary()
        )

    def changed(self, **settings) -> Job:
        """The job with other settings; what scores came to is shared, since none of them changes it."""
        made = replace(self, settings=self.settings.replace(**settings))
        made.__dict__["context"] = self.context
        return made

    @property
    def request(self) -> dict:
        """What `plan` takes beside the amount."""
        s = self.settings
        return {
            "strategy": s.strategy,
            "score": s.score,
            "layer_keep": s.layer_keep,
            "round_to": s.round_to,
            "fold": s.fold,
            "context": self.context,
            "knapsack": s.knapsack,
            "floors": self.floors,
        }

    def timings(self, models: list[Darknet]) -> list[Timing]:
        """The time of each network in the engine, measured in turn; all of them end on the CPU."""
        return time_under(models, self.settings.engine, self.size, self.device)

    def timed(self, models: list[Darknet]) -> list[float]:
        """Seconds of each network."""
        return [timing.seconds for timing in self.timings(models)]


def writes(settings: PruneSettings) -> dict[str, str | Path | None]:
    """flag -> every path that the job writes.

    Raises:
        RequestError: a name that none of its files can have; settings that exclude each other.
    """
    if settings.no_eval and settings.max_map_drop is not None:
        raise RequestError(
            "--max-map-drop", "given with --no_eval", "a data set to measure mAP on", "leave one of them out"
        )
    if settings.score == AUTO and (settings.no_eval or settings.sweep is not None):
        raise RequestError(
            "--score",
            f"{AUTO}, given with {'--no_eval' if settings.no_eval else '--sweep'}",
            "one request, and a data set to measure mAP on",
            "name a score",
        )
    alone = {"--sensitivity": settings.sensitivity, "--max-layer-loss": settings.max_layer_loss}
    for flag, value in alone.items():
        if value is not None and settings.score == AUTO:
            raise RequestError(flag, f"given with --score {AUTO}", "a score by name")
    if settings.max_layer_loss is not None and settings.shortcuts:
        raise RequestError("--max-layer-loss", "given with --shortcuts", "one of them")
    if settings.sweep is not None or settings.sensitivity is not None:
        name = sweep_name(settings)
        if not name.name or name.name == "..":
            raise RequestError(
                "--sweep_out", f"{name} is a folder", "a name to which .csv and .png are added"
            )
        return {f"--sweep_out ({end})": name.with_name(name.name + end) for end in (".csv", ".png")}
    model_out = Path(settings.model_out or default_out(settings.model_def))
    if model_out.suffix not in (".pth", ".weights"):
        raise RequestError("--model_out", str(model_out), "a name that ends in .pth")
    cfg = (
        Path(settings.cfg_out)
        if settings.cfg_out
        else Path("config") / f"prune_{Path(settings.model_def).stem}.cfg"
    )
    return {
        "--cfg_out": cfg,
        "--model_out": model_out.with_suffix(".pth"),
        "--model_out (.weights)": model_out.with_suffix(".weights"),
        "--model_out (.png)": model_out.with_suffix(".png"),
        "--latency_table": settings.latency_table if settings.target_latency is not None else None,
    }


def default_out(model_def: str) -> str:
    """Where the weights of a cut go unless asked for. A network that was cut before has a name of its own, so
    that two rounds leave two networks.
    """
    stem = Path(model_def).stem
    return f"checkpoints/prune_{stem if stem.startswith('prune_') else 'yolov3'}_ckpt.pth"


def sweep_name(settings: PruneSettings) -> Path:
    """The files of a sweep, or of layers cut alone, without their ends."""
    kind = "sweep" if settings.sensitivity is None else "sensitivity"
    return Path(settings.sweep_out or f"checkpoints/{kind}_{Path(settings.model_def).stem}")


def sizes(model: Darknet) -> dict:
    """Parameters, MACs and bytes of the .weights file."""
    counted = profile.count(model.graph)
    return {"params": counted.params, "macs": counted.macs, "bytes": weights.model_bytes(model)}
