"""From a cfg and a data set to a slimmer network, in steps, as one job that can be killed at any moment.

    dense -> for each step: sparse -> pruned (and repaired) -> tuned -> judged against the allowed drop

Every stage is another pipeline over files; its result lies in the work folder as JSON, and what has one is
not done again. Step i of n leaves the power i/n of what all steps together are to leave, so that every step
cuts the same share of what is then there (the schedule of DepGraph's YOLO example, Fang 2023, arXiv
2301.12900).
"""

from __future__ import annotations

from pathlib import Path

from ..base import devices
from ..base.errors import Interrupted, RequestError
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..data import datafile
from ..data.check import Report, check_dataset
from ..network import profile, weights
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..pruning import surgery
from ..pruning.budget import NEAR, amount
from ..pruning.plan import plan
from ..report.envelope import digest
from . import choosing
from .cut_settings import AUTO
from .job_pages import slim_page
from .measured_page import check_report
from .slim_folder import SlimFolder
from .slim_run import SlimRun
from .slim_settings import SlimSettings
from .slim_stages import SlimStages, prune_settings
from .train_parts import check_heads

FREE = ("report", "n_cpu", "device")  # settings that a run which goes on may change
GO_ON = "the same line goes on from there"


def slim(settings: SlimSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Slims a network until its target is met, its steps are done, or a step loses too much.

    Args:
        stop: ends the run in order once it is raised; the same settings go on with it.

    Returns:
        steps (percent, params, macs, map50_pruned, map50_recovered, seconds, cfg, weights ...), chosen (the
        number of the step that is handed back, 0 for none), dense_map50, final_map50, params, macs and
        latency before and after, cfg, weights, checkpoint, seconds (of the stages, each of its last piece
        where it was cut off), picture; choose_on and test_final_map50 where there are such lists.

    Raises:
        DarkslimError: an input or a setting is wrong, and nothing was changed; or a stage cannot go on.
        Interrupted: `stop` was raised.
    """
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    devices.device(settings.device)
    check_report(settings)
    data, model, share = check(settings)
    folder = SlimFolder(settings.work, identity(settings, data))
    reports = [] if folder.begun else look(data, settings, observer, stop)
    with folder:
        for report in reports:
            report.remember()
        try:
            run = SlimRun(SlimStages(settings, folder, observer, stop), model.graph, share)
            result = folder.stage("report", run.all, own_seconds=True)
        except Interrupted as e:
            raise Interrupted(e.place, e.found, remedy=GO_ON) from None
    if settings.report is not None:
        dense = settings.model_def, settings.weights or str(Path(settings.work) / "dense.pth")
        result = {**result, "report": str(slim_page(settings, result, dense, observer, stop))}
    return result


# --- before it starts ---


def check(settings: SlimSettings) -> tuple[datafile.DataConfig, Darknet, float | None]:
    """The data, the network, and the share of its target that is to be left; all that can be wrong is found
    now.
    """
    prune_settings(settings)  # refuses what excludes each other
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
        raise RequestError(f"--target-{kind}", f"is {share:.3g} times what {settings.model_def} has", "less")
    least = least_left(settings, model, kind)
    wanted = share * getattr(profile.count(model.graph), kind)
    if least > wanted * (1 + NEAR):
        raise RequestError(
            f"--target-{kind}",
            f"{amount(kind, wanted)} cannot be reached",
            f"strategy {settings.strategy} with --layer_keep {settings.layer_keep:g} and --round_to "
            f"{settings.round_to} leaves at least {amount(kind, least)}",
            "ask for more, or take another --strategy",
        )
    return share


def least_left(settings: SlimSettings, model: Darknet, kind: str) -> int:
    """Parameters or MACs of the narrowest network that the strategy and its floors allow."""
    decision = plan(
        model,
        1.0,
        settings.strategy,
        settings.layer_keep,
        1 if settings.round_to == AUTO else settings.round_to,
        fold="none",
        score="random",  # how much can go does not depend on what goes
    )
    return getattr(profile.count(surgery.apply(model, decision, "none").graph), kind)


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
            **settings.reading,
            progress=watched(observer, stop, "stopped while looking at the pictures"),
        )
        for path in lists
        if path is not None
    ]
