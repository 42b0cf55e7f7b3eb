"""A cut as one job: blocks, plan, surgery, proof, repair, files; or many ratios tried
(prune_sweep.py).
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

from ..base import devices, files
from ..base.errors import FileError, RequestError
from ..base.locks import locked
from ..base.observer import Observer
from ..base.signals import StopFlag
from ..network import weights
from ..network.channels import Channels
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..pruning import advice, cut, importance, surgery, verify
from ..pruning.blocks import Removal
from ..pruning.budget import Target
from ..pruning.plan import PrunePlan, plan
from ..pruning.sweep import deepest
from ..report import cut_text, tables
from ..report.network_picture.picture import network_picture
from ..training.faults import plain_errors
from .cut_settings import AUTO, PERCENT, PruneSettings
from .job_pages import prune_page
from .measured_page import check_report
from .pictures import Pictures
from .prune_folds import way_of_folding
from .prune_job import Job, sizes, writes
from .prune_latency import quick_enough
from .prune_layers import layers_alone, least_widths
from .prune_rounding import rounded
from .prune_scores import best_of
from .prune_sweep import try_ratios


def prune(settings: PruneSettings, observer: Observer | None = None, stop: StopFlag | None = None) -> dict:
    """Cuts a network, proves the cut, and writes cfg, checkpoint, weights and a picture; or tries ratios,
    where `sweep` is given, or layers alone, where `sensitivity` is.

    Args:
        stop: gives up, with nothing written, once it is raised.

    Returns:
        What test_prune.py writes with --json: params, macs, map50, latency and bytes before and after,
        max_abs_diff, layers, protected, ..., and the paths; of a sweep its rows and what is recommended; of
        layers cut alone their rows.

    Raises:
        DarkslimError: an input or a setting is wrong, or a proof failed; nothing was written.
    """
    began = time.perf_counter()
    files.check_outputs(writes(settings), settings.reads())
    devices.seed_everything(settings.seed)
    device = devices.device(settings.device)
    model = load(settings)
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    lock = locked(Path(list(writes(settings).values())[1]).with_suffix(".lock"))
    for flag in ("sweep", "sensitivity"):
        if getattr(settings, flag) is not None and settings.report is not None:
            raise RequestError("--report", f"given with --{flag}", "one of them", "it writes its own picture")
    check_report(settings)
    with plain_errors(), Pictures(settings, model, device, observer, stop) as pictures, lock:
        job = Job(settings, observer, pictures, device, model)
        if settings.max_layer_loss is not None:
            job = replace(job, floors=least_widths(job))
        if settings.sensitivity is not None:
            result = layers_alone(job)
        elif settings.sweep is not None:
            result = try_ratios(rounded(way_of_folding(job, None, decide), None))
        else:
            result = cut_and_write(job)
    if settings.report is not None:
        judged = pictures.judging and Path(pictures.judging.dataset.report.list_path)
        result["report"] = prune_page(settings, result, observer, stop, judged)
    return {**result, "seconds": time.perf_counter() - began}


# ----------------------------------------------------------------------------------------------------------
# before the cut


def load(settings: PruneSettings) -> Darknet:
    """The network to be cut, in eval mode on the CPU."""
    model = Darknet(settings.model_def)
    input_size(model.graph, settings.img_size)  # refused now rather than after the work
    if not os.path.lexists(settings.model):
        raise FileError(
            settings.model,
            "no such checkpoint",
            remedy="train one (python train.py -sr), or name it with --model",
        )
    weights.load_weights(model, settings.model)
    return model.eval()


# ------------------------------------------------------------------------------------------------------------
# ------ the cut


def cut_and_write(job: Job) -> dict:
    """One cut, from the plan to the files and the table."""
    s, observer = job.settings, job.observer
    made, scores = make_cut(job)
    before, after = measure(job, [job.model, made.compact])
    cfg, checkpoint, weight_file, picture = (Path(path) for path in list(writes(s).values())[:4])
    title = f"{Path(s.model_def).name}: {before['params']:,} to {after['params']:,} parameters"
    drawn = network_picture(
        job.model.graph, made.compact.graph, title, made.numbers, made.carriers(), dict(made.protected())
    )
    extra = {
        "pruned_from": str(s.model_def),
        "percent": made.decision.percent,
        "strategy": s.strategy,
        "score": made.decision.score,
        "fold": made.fold,
    }
    told = verify.save_proven(
        made.compact, cfg, checkpoint, weight_file, more=[files.Save(picture, drawn)], extra=extra
    )
    for sentence in told:
        observer.say(sentence)
    job.pictures.remember()  # only now: a request that is refused changes nothing on disk
    observer.detail(cut_text.cut(made))
    observer.say(
        "written, reloaded from the disk, and equal bit by bit"
        + (" (batch norms folded in)" if made.fused else "")
    )
    observer.detail(tables.comparison(before, after))
    return {
        **report(made, before, after),
        "scores": scores,
        "trainable": all(made.compact.cfg.layers[h.index].type == "yolo" for h in made.compact.heads),
        "cfg": cfg,
        "checkpoint": checkpoint,
        "weights": weight_file,
        "picture": picture,
    }


def make_cut(job: Job) -> tuple[cut.Cut, list[dict]]:
    """Blocks, channels, proofs, repair, fusing: all that is asked for, in memory; and the scores that were
    tried.
    """
    s = job.settings
    removal = cut.without_blocks(job.model, s.shortcuts, s.seed)
    job = rounded(way_of_folding(job, removal, decide), removal)
    s = job.settings
    decision, scores = best_of(job, removal, decide) if s.score == AUTO else (decide(job, removal), [])
    job.observer.detail(cut_text.gammas(importance.sparsity(decision.gammas), decision))
    said = [
        advice.of_strategy(Channels(job.model.graph), s.strategy),
        advice.of_blocks(removal.blocks, decision.gammas) if removal else None,
        *advice.warnings_for(
            decision, measured=s.max_map_drop is not None or job.pictures.repair == "reconstruct"
        ),
    ]
    for warning in filter(None, said):
        warnings.warn(warning, stacklevel=2)
    made = cut.make(job.model, decision, removal, s.fold, s.seed)
    if job.pictures.repair:
        folded = job.pictures.judge(made.compact)
        done = job.pictures.mend(job.model, decision, made.compact, removal)
        repair = job.pictures.repair
        made = replace(made, repair=repair, folded_map50=folded, pictures=done.pictures, fits=done.fits)
    return (cut.fused(made, s.seed) if s.fuse_bn else made), scores


def decide(job: Job, removal: Removal | None) -> PrunePlan:
    """The plan that the request asks for, for the network without the removed blocks."""
    s, model = job.settings, removal.model if removal else job.model
    if s.target is not None:
        kind, value, absolute = s.target
        if kind == "latency":
            return quick_enough(job, model)
        return plan(
            model,
            target=Target(kind, value if absolute else value * sizes(job.model)[kind], True),
            **job.request,
        )
    if s.max_map_drop is None:
        return plan(model, PERCENT if s.percent is None else s.percent, **job.request)
    return good_enough(job, model, removal)


def good_enough(job: Job, model: Darknet, removal: Removal | None) -> PrunePlan:
    """The plan for max_map_drop: the deepest cut whose mAP, on the pictures that choose, is near enough to
    that of the network as given.

    Raises:
        RequestError: blocks that were removed, or the repair, cost more than that without any cut.
    """
    pictures = job.pictures
    least = pictures.choose(job.model) - job.settings.max_map_drop
    known: dict[int, float] = {}  # channels cut -> mAP: where the floors hold, a higher ratio is the same cut

    def good(percent: float) -> bool:
        decision = plan(model, percent, **job.request)
        if decision.cut not in known:
            compact = surgery.apply(model, decision, job.settings.fold)
            pictures.mend(job.model, decision, compact, removal)
            known[decision.cut] = pictures.choose(compact)
        reached = known[decision.cut]
        job.observer.say(f"percent {percent:.2f}: mAP50 {reached:.4f}, at least {least:.4f} wanted")
        return reached >= least

    percent = deepest(good)
    if not percent and (model is not job.model or pictures.repair) and not good(0.0):
        raise RequestError(
            "--max-map-drop",
            f"mAP50 is below {least:.4f} before any channel is cut",
            "blocks removed and the network repaired at no more than that loss",
            "allow more, remove fewer blocks, or change --recalibrate or --reconstruct",
        )
    return plan(model, percent, **job.request)


# -----------------------------------------------------------------------------------------------------------
# after the cut


def measure(job: Job, models: list[Darknet]) -> list[dict]:
    """Sizes, latency and mAP of each network."""
    sides = [sizes(model) | {"map50": job.pictures.judge(model)} for model in models]
    for side, timing in zip(sides, job.timings(models), strict=True):
        side["latency"], side["latency_spread"] = timing.seconds, timing.spread
        side["engine"] = job.settings.engine
    return sides


def report(made: cut.Cut, before: dict, after: dict) -> dict:
    """A cut as plain values."""
    d, carriers = made.decision, made.carriers()
    return {
        **{
            f"{key}_{when}": side[key]
            for key in ("params", "macs", "map50", "latency", "latency_spread", "bytes")
            for when, side in (("before", before), ("after", after))
        },
        "map50_folded": made.folded_map50,
        "recalibrated": made.pictures if made.repair == "recalibrate" else 0,
        "reconstructed": made.pictures if made.repair == "reconstruct" else 0,
        "reconstruction": [
            {"layer": f.layer, "before": f.before, "after": f.after, "ridge": f.ridge} for f in made.fits
        ],
        "fused": made.fused,
        "max_abs_diff": made.proof.max_abs_diff,
        "max_rel_diff": made.proof.relative,
        "proof_error": made.proof.error,
        "fold": made.fold,
        "fold_differences": made.differences,
        "protected": [{"layer": layer, "reason": reason} for layer, reason in made.protected()],
        "layers": [
            {"layer": layer, "before": a, "after": b, "carriers": carriers.get(layer, 0)}
            for layer, a, b in made.rows()
        ],
        "blocks": [
            {"shortcut": b.shortcut, "layers": [*b.body, b.shortcut], "score": b.score} for b in made.blocks
        ],
        "strategy": d.strategy,
        "round_to": d.round_to,
        "engine": before["engine"],
        "score": d.score,
        "percent": d.percent,
        "prunable": d.prunable,
        "requested": d.requested,
        "knapsack": d.knapsack,
        "importance_kept": d.importance_kept,
        "cut": d.cut,
        "threshold": d.threshold,
        "near_zero": importance.sparsity(d.gammas).near_zero,
        "target": d.target and {"kind": d.target.kind, "wanted": d.wanted, "reached": d.reached},
    }
