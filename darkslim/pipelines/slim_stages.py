"""The stages of a slim run: each is another pipeline over files, called with what the run's settings hand
on.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path

from ..base import devices, files
from ..base.observer import Observer, Part
from ..base.signals import StopFlag
from ..data import datafile
from ..data.check import check_dataset
from ..network.darknet import Darknet
from ..network.graph import Graph, input_size
from . import choosing
from .cut_settings import AUTO, PruneSettings
from .engine_times import time_under
from .evaluate import evaluate
from .prune import prune
from .settings import EvaluateSettings, Optimization, TrainSettings
from .slim_folder import SlimFolder
from .slim_settings import SlimSettings
from .train import train


@dataclass(frozen=True)
class Network:
    """A network on the disk: its cfg, and the weights that the next stage takes."""

    cfg: str
    weights: str


class SlimStages:
    """What a run can do: train, cut, measure. What is done already is read from the folder instead.

    Attributes:
        seconds: of all stages asked for so far.
        data: what the settings name. data_config: the `.data` file that the stages take.
        choosers: the list that chooses; None where nothing is chosen.
    """

    def __init__(self, settings: SlimSettings, folder: SlimFolder, observer: Observer, stop: StopFlag):
        self.settings, self.folder, self.observer, self.stop = settings, folder, observer, stop
        self.part, self.seconds = Part(observer), 0.0
        self.data = datafile.read_data(settings.data_config)
        self.data_config, self.choosers = settings.data_config, None
        folds = settings.fold == AUTO and bool(settings.recalibrate or settings.reconstruct)
        if settings.max_map_drop is not None or settings.score == AUTO or folds:
            self._set_choosers()

    def _set_choosers(self) -> None:
        """Names the list that chooses; where it has to be a part of `train`, writes it and what is left."""
        s, config = self.settings, self.data
        path = choosing.chosen_list(config, s.choose_on)
        images = check_dataset(path or config.train, config.classes, decode=False, **s.reading).images
        if path is not None:
            self.choosers = path
            self.observer.say(choosing.said(config, s.choose_on, len(images), trained_on=False))
            return
        places = choosing.held_out(len(images), s.seed)
        train_list, self.choosers, data = (self.folder / n for n in ("train.txt", "choose.txt", "slim.data"))
        parts = ((train_list, choosing.rest(len(images), places)), (self.choosers, places))
        saves = [files.Save(path, "".join(f"{images[i]}\n" for i in some)) for path, some in parts]
        text = datafile.data_text(config.classes, train_list, config.valid, config.names_path)
        files.save_all([*saves, files.Save(data, text)])
        self.data_config = str(data)
        self.observer.say(choosing.said(config, None, len(places), trained_on=s.weights is not None))

    def stage(self, name: str, said: str, job) -> dict:
        """A stage of the folder, announced unless it is done."""
        if not self.folder.done(name):
            self.stop.check(f"stopped before {name}")
            self.observer.say(f"=== {said}")
        result = self.folder.stage(name, job)
        self.seconds += result["seconds"]
        return result

    def train(
        self,
        name: str,
        said: str,
        cfg: str,
        start: str | None,
        epochs: int | None,
        seed: int,
        sr: bool = False,
        teacher: Network | None = None,
    ) -> dict:
        """A training; one that was cut off goes on from its state.

        Args:
            seed: what this training's seed is beyond that of the run: each sees other batches.
            teacher: what it is pulled to.
        """
        s, checkpoint = self.settings, self.folder / f"{name}.pth"
        common = {f.name: getattr(s, f.name) for f in fields(Optimization)}
        common |= {"t_cfg": teacher and teacher.cfg, "t_weights": teacher and teacher.weights}

        def job() -> dict:
            resume = checkpoint.with_name(f"{checkpoint.stem}.last.pth").exists()
            settings = TrainSettings(
                **common,
                **s.shared(but="seed"),
                model_def=cfg,
                data_config=self.data_config,
                seed=(s.seed + seed) % 2**32,
                pretrained_weights=start,
                epochs=epochs,
                sr=sr,
                strategy=s.strategy,
                keep="last",
                evaluation_interval=0,
                checkpoint=str(checkpoint),
                resume=resume,
                logdir=str(self.folder / "logs"),
            )
            return train(settings, self.part, self.stop)

        return self.stage(name, said, job)

    def teacher(self, dense: Network) -> Network | None:
        """What finetuning is pulled to."""
        s = self.settings
        if s.t_weights is not None:
            return Network(s.t_cfg or s.model_def, s.t_weights)
        return dense if s.teacher == "dense" else None

    def cut(self, number: int, said: str, network: Network, amount: dict) -> dict:
        """The cut of one step.

        Args:
            amount: how much, as settings of `prune`.
        """
        s, out = self.settings, self.folder / f"step{number}"
        settings = prune_settings(
            s,
            model_def=network.cfg,
            model=network.weights,
            data_config=self.data_config,
            choose_on=None if self.choosers is None else str(self.choosers),
            cfg_out=str(out / f"slim_{Path(s.model_def).stem}.cfg"),
            model_out=str(out / "pruned.pth"),
            **amount,
        )

        def job() -> dict:
            with warnings.catch_warnings():
                if not s.score.startswith("gamma"):  # gammas that were never pressed are no fault then
                    warnings.filterwarnings("ignore", "this network looks never trained for sparsity")
                return prune(settings, self.part, self.stop)

        return self.stage(f"step{number}/pruned", said, job)

    def measure(self, name: str, network: Network, images: Path | None = None) -> dict:
        """The score of a network, on `valid` or another list."""
        s = self.settings
        settings = EvaluateSettings(
            model_def=network.cfg,
            weights_path=network.weights,
            data_config=self.data_config,
            **s.shared(),
            batch_size=s.eval_batch_size,
            images=images and str(images),
        )
        return self.stage(
            name,
            f"{network.weights} is measured on {images or self.data.valid}",
            lambda: evaluate(settings, self.part, self.stop),
        )

    def choose(self, name: str, network: Network) -> float | None:
        """mAP50 on the pictures that choose; None where nothing is chosen."""
        return None if self.choosers is None else self.measure(name, network, self.choosers)["map50"]

    def test(self, name: str, network: Network) -> float | None:
        """mAP50 on the data's `test` list; None without one. It chooses nothing."""
        if self.data.test in (None, self.data.valid):
            return None
        return self.measure(name, network, self.data.test)["map50"]

    def latency(self, graph: Graph) -> float:
        """Seconds of the dense network at batch 1."""
        s = self.settings

        def job() -> dict:
            size = input_size(graph, s.img_size)
            (timing,) = time_under([Darknet(s.model_def)], s.engine, size, devices.device(s.device))
            return {"latency": timing.seconds, "latency_spread": timing.spread}

        return self.stage("latency", "the dense network is timed", job)["latency"]


def prune_settings(settings: SlimSettings, **own) -> PruneSettings:
    """What `prune` is told in a run.

    Args:
        own: of one step: its network, how much, what chooses, where to.

    Raises:
        RequestError: settings that exclude each other.
    """
    s = settings
    return PruneSettings(
        **s.shared(),
        strategy=s.strategy,
        score=s.score,
        layer_keep=s.layer_keep,
        round_to=s.round_to,
        knapsack=s.knapsack and s.target is not None,
        engine=s.engine,
        fold=s.fold,
        latency_table=s.latency_table,
        recalibrate=s.recalibrate or None,  # 0 would be said beside --reconstruct
        reconstruct=s.reconstruct,
        batch_size=s.eval_batch_size,
        **own,
    )
