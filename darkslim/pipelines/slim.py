"""From a cfg and a data set to a slimmer network, in steps, as one job that can be killed at any moment.

    dense -> for each step: sparse -> pruned (-> recalibrated) -> tuned -> judged against the drop that is
    allowed

Every stage is another pipeline over files; its result lies in the work folder as JSON, and what has one is
not done again. Step i of n leaves the power i/n of what all steps together are to leave, so that every step
cuts the same share of what is then there (the schedule of DepGraph's YOLO example, Fang 2023, arXiv
2301.12900).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from ..base import devices, files, records
from ..base.errors import Interrupted, RequestError
from ..base.observer import Observer, Part, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.check import Report, check_dataset
from ..network import profile, weights
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.graph import Graph, input_size
from ..pruning import verify
from ..report import slim_report
from ..report.envelope import digest
from . import choosing
from .evaluate import evaluate
from .prune import prune
from .settings import EvaluateSettings, Optimization, PruneSettings, SlimSettings, TrainSettings
from .slim_folder import SlimFolder
from .train import check_heads, train

FREE = ("n_cpu", "device")  # settings that a run which goes on may change
GO_ON = "the same line goes on from there"


def slim(settings: SlimSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Slims a network until its target is met, its steps are done, or a step loses too much.

    Args:
        stop: ends the run in order once it is raised; the same settings go on with it.

    Returns:
        steps (percent, params, macs, map50_pruned, map50_recovered, seconds, cfg, weights ...), chosen (the
        number of the step that is handed back, 0 for none), dense_map50, final_map50, params, macs and
        latency before and after, cfg, weights, seconds, picture.

    Raises:
        DarkslimError: an input or a setting is wrong, and nothing was changed; or a stage cannot go on.
        Interrupted: `stop` was raised.
    """
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    devices.device(settings.device)
    data, model, share = check(settings)
    folder = SlimFolder(settings.work, identity(settings, data))
    reports = [] if folder.begun else look(data, settings, observer, stop)
    with folder:
        for report in reports:
            report.remember()
        run = SlimRun(settings, folder, observer, stop, model.graph, share)
        try:
            return folder.stage("report", run.all)
        except Interrupted as e:
            raise Interrupted(e.place, e.found, remedy=GO_ON) from None


# -----------------------------------------------------------------------------------------------------------
# before it starts


def check(settings: SlimSettings) -> tuple[datafile.DataConfig, Darknet, float | None]:
    """The data, the network, and the share of its target that is to be left; all that can be wrong is found
    now.
    """
    data = datafile.read_data(settings.data_config)
    for key in ("train", "valid"):
        data.list_path(key)
    model = Darknet(settings.model_def)
    check_heads(model, data)
    input_size(model.graph, settings.img_size)
    if not len(Channels(model.graph).prunable(settings.strategy)):
        raise RequestError(
            settings.model_def,
            f"nothing can be pruned by strategy {settings.strategy}",
            "channels that may be cut",
            "take another --strategy",
        )
    if settings.weights is not None:
        weights.load_weights(model, settings.weights)
    return data, model, wanted_share(settings, model)


def wanted_share(settings: SlimSettings, model: Darknet) -> float | None:
    """How much of the MACs or parameters is to be left, 0 to 1; for a latency its share, or None where it is
    a time.
    """
    if settings.target is None:
        return None
    kind, value, absolute = settings.target
    if kind == "latency":
        return None if absolute else value
    share = value / getattr(profile.count(model.graph), kind) if absolute else value
    if share >= 1:
        raise RequestError(
            f"--target-{kind}", f"is {share:.3g} times what {settings.model_def} has", "less than it has"
        )
    return share


def identity(settings: SlimSettings, data: datafile.DataConfig) -> dict:
    """What a run that goes on must share with the one that began."""
    chosen = {name: value for name, value in settings.to_dict().items() if name not in FREE}
    hashes = {f"the content of {path}": digest(path) for path in (*settings.reads().values(), *data.reads)}
    return {**chosen, **hashes}


def look(
    data: datafile.DataConfig, settings: SlimSettings, observer: Observer, stop: StopFlag
) -> list[Report]:
    """Every picture and label that the run will read, once."""
    lists = dict.fromkeys([data.train, data.valid, choosing.chosen_list(data, settings.choose_on)])
    return [
        check_dataset(
            path,
            data.classes,
            need_boxes=True,
            save=False,
            progress=watched(observer, stop, "stopped while looking at the pictures"),
        )
        for path in lists
        if path is not None
    ]


# ------------------------------------------------------------------------------------------------------------
# ----- the stages


@dataclass(frozen=True)
class Network:
    """A network on the disk: cfg and weights, as the next stage takes them."""

    cfg: str
    weights: str


class SlimRun:
    """The stages of one run, each a pipeline over files in the work folder.

    Args:
        dense: the graph of the network that the run begins with. share: how much of the target is to be left.
    """

    def __init__(
        self,
        settings: SlimSettings,
        folder: SlimFolder,
        observer: Observer,
        stop: StopFlag,
        dense: Graph,
        share: float | None,
    ):
        self.settings, self.folder, self.observer, self.stop = settings, folder, observer, stop
        self.part, self.dense, self.share = Part(observer), dense, share
        self.seconds = 0.0
        self.data_config, self.choosers = self.lists()

    def lists(self) -> tuple[str, Path | None]:
        """The data that the stages train on, and the list that chooses, None where nothing is chosen."""
        s, config = self.settings, datafile.read_data(self.settings.data_config)
        if s.max_map_drop is None:
            return s.data_config, None
        path = choosing.chosen_list(config, s.choose_on)
        if path is not None:
            self.observer.say(
                choosing.said(
                    config, s.choose_on, len(check_dataset(path, config.classes, decode=False).images), False
                )
            )
            return s.data_config, path
        images = check_dataset(config.train, config.classes, decode=False).images
        places = choosing.held_out(len(images), s.seed)
        train_list, choose_list, data_file = (
            self.folder / name for name in ("train.txt", "choose.txt", "slim.data")
        )
        parts = ((train_list, choosing.rest(len(images), places)), (choose_list, places))
        saves = [files.Save(path, "".join(f"{images[i]}\n" for i in some)) for path, some in parts]
        text = datafile.data_text(config.classes, train_list, config.valid, config.names_path)
        files.save_all([*saves, files.Save(data_file, text)])
        self.observer.say(choosing.said(config, None, len(places), trained_on=s.weights is not None))
        return str(data_file), choose_list

    def all(self) -> dict:
        """Every stage that is still to be done, and the report."""
        s = self.settings
        network, dense = self.begin()
        steps, chosen = [], 0
        for number in range(1, s.iterative_steps + 1):
            network, row = self.step(number, network, steps)
            steps.append(row)
            self.observer.say(slim_report.line(row, s.iterative_steps))
            if (
                s.max_map_drop is not None
                and dense["choose_map50"] - row["choose_map50_recovered"] > s.max_map_drop
            ):
                self.observer.say(
                    f"step {number} loses {dense['choose_map50'] - row['choose_map50_recovered']:.4f} of "
                    "mAP50, more than "
                    f"{s.max_map_drop:g}: "
                    + (f"step {chosen} is handed back" if chosen else "nothing is cut")
                )
                break
            chosen = number
        return self.finish(dense, steps, chosen)

    def begin(self) -> tuple[Network, dict]:
        """The dense network: trained, or as it was given and measured."""
        s = self.settings
        if s.weights is not None:
            network = Network(s.model_def, s.weights)
            dense = self.stage("dense", "the network as given is measured", lambda: self.evaluated(network))
        else:
            network = Network(s.model_def, str(self.folder / "dense.pth"))
            dense = self.trained(
                "dense", f"dense training, {s.epochs} epochs", s.model_def, None, s.epochs, seed=0
            )
        if s.target and s.target[0] == "latency":
            self.latency = self.stage("latency", "the dense network is timed", self.timed)["latency"]
        chosen = self.chosen_by("dense_choose", network)
        return network, {**dense, "choose_map50": chosen}

    def step(self, number: int, network: Network, steps: list[dict]) -> tuple[Network, dict]:
        """One step: press, cut, finetune, judge."""
        s, name, before = self.settings, f"step{number}", self.seconds
        said = f"step {number} of {s.iterative_steps}"
        sparse, press = None, share_of(s.sparse_epochs, number, s.iterative_steps)
        if press:
            sparse = self.trained(
                f"{name}/sparse",
                f"{said}: sparsity training, {press} epochs",
                network.cfg,
                network.weights,
                press,
                seed=2 * number - 1,
                sr=True,
            )
            network = Network(network.cfg, sparse["checkpoint"])
        cut = self.stage(f"{name}/pruned", f"{said}: cut", lambda: self.cut(number, network, steps))
        network = Network(cut["cfg"], cut["checkpoint"])
        tune = share_of(s.finetune_epochs, number, s.iterative_steps)
        tuned = self.trained(
            f"{name}/tuned",
            f"{said}: finetuning, {tune} epochs",
            network.cfg,
            network.weights,
            tune,
            seed=2 * number,
        )
        network = Network(cut["cfg"], tuned["checkpoint"])
        chosen = self.chosen_by(f"{name}/choose", network)
        return network, {
            "step": number,
            "percent": cut["percent"],
            "params": cut["params_after"],
            "macs": cut["macs_after"],
            "map50_sparse": sparse and sparse["map50"],
            "dose": sparse and sparse["dose"],
            "map50_pruned": cut["map50_after"],
            "map50_recovered": tuned["map50"],
            "choose_map50_recovered": chosen,
            "max_abs_diff": cut["max_abs_diff"],
            "proof_error": cut["proof_error"],
            "latency_ratio": cut["latency_after"] / cut["latency_before"],
            "target": cut["target"],
            "epochs": press + tune,
            "seconds": self.seconds - before,
            "cfg": network.cfg,
            "weights": network.weights,
        }

    def cut(self, number: int, network: Network, steps: list[dict]) -> dict:
        """The cut of one step."""
        s, out = self.settings, self.folder / f"step{number}"
        with warnings.catch_warnings():
            if not s.score.startswith("gamma"):  # gammas that were never pressed are no fault then
                warnings.filterwarnings("ignore", "this network looks never trained for sparsity")
            return prune(
                PruneSettings(
                    model_def=network.cfg,
                    model=network.weights,
                    data_config=self.data_config,
                    img_size=s.img_size,
                    n_cpu=s.n_cpu,
                    seed=s.seed,
                    device=s.device,
                    strategy=s.strategy,
                    score=s.score,
                    layer_keep=s.layer_keep,
                    round_to=s.round_to,
                    fold=s.fold,
                    latency_table=s.latency_table,
                    recalibrate=s.recalibrate,
                    batch_size=s.eval_batch_size,
                    cfg_out=str(out / f"slim_{Path(s.model_def).stem}.cfg"),
                    model_out=str(out / "pruned.pth"),
                    **self.amount(number, steps),
                ),
                self.part,
                self.stop,
            )

    def amount(self, number: int, steps: list[dict]) -> dict:
        """How much one step cuts, as settings of `prune`: what is then left is the power i/n of what all
        steps leave.
        """
        s, power = self.settings, number / self.settings.iterative_steps
        if s.target is None:
            return {"percent": 1 - (1 - s.rate) ** (1 / s.iterative_steps)}
        kind, value, absolute = s.target
        if kind != "latency":
            return {f"target_{kind}": (self.share**power * getattr(profile.count(self.dense), kind), True)}
        if absolute and number == s.iterative_steps:
            return {"target_latency": (value, True)}
        share = self.share
        if absolute:
            share = min(1.0, value / self.latency)
        left = 1.0
        for row in steps:
            left *= row["latency_ratio"]
        return {"target_latency": (min(1.0, share**power / left), False)}

    def timed(self) -> dict:
        """Seconds of the dense network at batch 1."""
        model = Darknet(self.settings.model_def).to(devices.device(self.settings.device))
        return {"latency": profile.latency(model, input_size(model.graph, self.settings.img_size))}

    def trained(
        self, name: str, said: str, cfg: str, start: str | None, epochs: int, seed: int, sr: bool = False
    ) -> dict:
        """A training; one that was cut off goes on from its state. Its weights are written as Darknet's,
        too.
        """
        s, checkpoint = self.settings, self.folder / f"{name}.pth"
        common = {f.name: getattr(s, f.name) for f in fields(Optimization)}

        def job() -> dict:
            resume = checkpoint.with_name(f"{checkpoint.stem}.last.pth").exists()
            result = train(
                TrainSettings(
                    **common,
                    logdir=str(self.folder / "logs"),
                    model_def=cfg,
                    data_config=self.data_config,
                    img_size=s.img_size,
                    n_cpu=s.n_cpu,
                    device=s.device,
                    seed=(s.seed + seed) % 2**32,
                    pretrained_weights=start,
                    epochs=epochs,
                    sr=sr,
                    strategy=s.strategy,
                    evaluation_interval=0,
                    keep="last",
                    checkpoint=str(checkpoint),
                    resume=resume,
                ),
                self.part,
                self.stop,
            )
            model = weights.load_model(cfg, checkpoint)
            weights.save_weights(model, checkpoint.with_suffix(".weights"))
            return result

        return self.stage(name, said, job)

    def evaluated(self, network: Network, images: Path | None = None) -> dict:
        """The score of a network, on `valid` or another list."""
        s = self.settings
        return evaluate(
            EvaluateSettings(
                model_def=network.cfg,
                weights_path=network.weights,
                data_config=self.data_config,
                img_size=s.img_size,
                n_cpu=s.n_cpu,
                device=s.device,
                seed=s.seed,
                batch_size=s.eval_batch_size,
                images=images and str(images),
            ),
            self.part,
            self.stop,
        )

    def chosen_by(self, name: str, network: Network) -> float | None:
        """mAP50 on the pictures that choose; None where nothing is chosen."""
        if self.choosers is None:
            return None
        return self.stage(
            name, "measured on the pictures that choose", lambda: self.evaluated(network, self.choosers)
        )["map50"]

    def stage(self, name: str, said: str, job) -> dict:
        """A stage of the folder, announced unless it is done."""
        if not self.folder.done(name):
            self.stop.check(f"stopped before {name}")
            self.observer.say(f"=== {said}")
        result = self.folder.stage(name, job)
        self.seconds += result["seconds"]
        return result

    # --------------------------------------------------------------------------------------------------------
    # ---- the end

    def finish(self, dense: dict, steps: list[dict], chosen: int) -> dict:
        """Writes the network that is handed back, proven, and the picture; what they are reported as."""
        s, counted = self.settings, profile.count(self.dense)
        row = steps[chosen - 1] if chosen else None
        begun = Network(s.model_def, s.weights or str(self.folder / "dense.pth"))
        final = self.hand_back(row) if row else begun
        if not chosen:
            warnings.warn(
                f"no step keeps mAP50 within {s.max_map_drop:g}: the network stays as it was; take more "
                "--iterative-steps, a "
                "smaller --rate, or finetune longer",
                stacklevel=2,
            )
        result = {
            "steps": steps,
            "chosen": chosen,
            "dense_map50": dense["map50"],
            "sparse_map50": last(steps, "map50_sparse"),
            "pruned_map50": row and row["map50_pruned"],
            "final_map50": row["map50_recovered"] if row else dense["map50"],
            "choose_on": self.choosers,
            "dense_choose_map50": dense["choose_map50"],
            "params_before": counted.params,
            "params_after": row["params"] if row else counted.params,
            "macs_before": counted.macs,
            "macs_after": row["macs"] if row else counted.macs,
            **self.measured(final),
            "max_abs_diff": max((r["max_abs_diff"] for r in steps), default=None),
            "dose": [row["dose"] for row in steps if row["dose"] is not None],
            "cfg": final.cfg,
            "weights": final.weights,
            "seconds": self.seconds,
            "recipe": s.recipe,
            "seed": s.seed,
            "target": s.target,
            "max_map_drop": s.max_map_drop,
            "iterative_steps": s.iterative_steps,
            "picture": self.folder / "slim.png",
        }
        files.save(
            result["picture"],
            slim_report.figure(records.jsonable(result), f"{Path(s.model_def).name}, {s.recipe}"),
        )
        return result

    def hand_back(self, row: dict) -> Network:
        """The chosen network at the top of the folder: cfg, .pth and .weights, read back from the disk and
        compared.
        """
        cfg, checkpoint = self.folder / Path(row["cfg"]).name, self.folder / "slim.pth"
        model = weights.load_model(row["cfg"], row["weights"])
        verify.save_proven(
            model,
            cfg,
            checkpoint,
            checkpoint.with_suffix(".weights"),
            extra={"slimmed_from": self.settings.model_def},
        )
        return Network(str(cfg), str(checkpoint))

    def measured(self, final: Network) -> dict:
        """Latency (batch 1, in turn) and bytes of the dense network and of the one that is handed back."""
        device = devices.device(self.settings.device)
        models = [Darknet(cfg).to(device).eval() for cfg in (self.settings.model_def, final.cfg)]
        seconds = profile.paired_latency(models, input_size(models[0].graph, self.settings.img_size))
        sides = zip(("before", "after"), models, seconds, strict=True)
        return {
            key: value
            for when, model, took in sides
            for key, value in ((f"latency_{when}", took), (f"bytes_{when}", weights.model_bytes(model)))
        }


def share_of(total: int, number: int, steps: int) -> int:
    """The epochs of one step: `total` shared out evenly, none lost."""
    return total * number // steps - total * (number - 1) // steps


def last(rows: Iterable[dict], key: str):
    """The last value of a key that is not None; None if there is none."""
    return next((row[key] for row in reversed(list(rows)) if row[key] is not None), None)
