"""Unstructured sparsity as jobs: weights of the same cfg, many of them 0, with or without training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..base import devices, files
from ..base.errors import RequestError
from ..base.observer import Observer, watched
from ..base.signals import StopFlag
from ..compression import magnitude
from ..compression.allotment import allot
from ..compression.masked import Masked
from ..compression.saliency import Saliency
from ..compression.splicing import Splicing
from ..network import checkpoints, weights
from ..network.darknet import Darknet
from ..network.graph import input_size
from ..network.packed import GAPS, distances
from ..network.twins import twin
from ..network.weights import weights_bytes, weights_size
from .compress_settings import SparsifySettings, SurgerySettings, Thinning
from .constrained import trained
from .job_pages import sparse_page
from .measured_page import check_report
from .resolving import batches_of, resolved, settled, weighed
from .score import Scores


def sparsify(
    settings: SparsifySettings, observer: Observer | None = None, stop: StopFlag | None = None
) -> dict:
    """Sets the smallest weights to 0, at once or while it trains, and solves the rest again where that is
    asked for.

    Returns:
        checkpoint, weights, bytes_before, bytes_after (of a packed file of the zeros' kind), zeros, layers
        (layer, weights, zeros), map50_before, map50_after, before, after (images, boxes, precision, recall,
        map50, map, seconds), map50_solved (before a training that follows), reconstruction, history, seconds.

    Raises:
        DarkslimError: an input or a setting is wrong; nothing was written.
        Interrupted: `stop` was raised; a training's state is saved.
    """

    by_error = settings.score == "error" or (settings.score is None and settings.reconstruct > 0)
    if by_error and not settings.reconstruct:
        raise RequestError("--score", "error without pictures", "--reconstruct N")
    scope = settings.scope or ("global" if by_error else "layer")

    def choose(model: Darknet, share: float) -> dict:
        if settings.pattern is None:
            return magnitude.smallest(model, settings.ratio * share, scope)
        if share < 1:
            return magnitude.smallest(model, 0.5 * share)
        return magnitude.two_of_four(model)

    def by_worth(model: Darknet, worth: dict[int, Saliency]) -> dict:
        if settings.pattern is None and scope == "global":
            return cheapest(worth, settings.ratio)
        costs = {layer: one.costs for layer, one in worth.items()}
        if settings.pattern is None:
            return magnitude.smallest(model, settings.ratio, worth=costs)
        return magnitude.two_of_four(model, costs)

    def at_once(job: _Job) -> dict:
        batches = batches_of(settings, job.model, job.progress) if settings.reconstruct else []
        if by_error:
            keep = by_worth(job.model, weighed(settings, job.model, batches, job.progress))
        else:
            keep = choose(job.model, 1.0)
        return job.zeroed(keep, batches)

    def change(job: _Job) -> dict:
        if not settings.epochs:
            return at_once(job)
        if not settings.reconstruct:
            return job.trained(lambda model: [Masked(model, choose)])
        done = {} if job.begun else at_once(job)
        return done | job.trained(lambda model: [Masked(model, open_now)], solved=True)

    return _thin(settings, "sparsified", change, observer, stop)


def surgery(
    settings: SurgerySettings, observer: Observer | None = None, stop: StopFlag | None = None
) -> dict:
    """Dynamic network surgery: weights go and come back while the network trains. With pictures to solve on
    it begins with what `sparsify` would leave on them.

    Returns:
        As `sparsify`; `history` has zeros, returned and again (shares of all weights) for each epoch.

    Raises:
        DarkslimError, Interrupted: as `sparsify`.
    """
    s = settings

    def change(job: _Job) -> dict:
        done, measured = {}, {}
        if s.reconstruct and not job.begun:
            batches = batches_of(s, job.model, job.progress)
            worth = weighed(s, job.model, batches, job.progress)
            keep = cheapest(worth, s.ratio)
            done = job.zeroed(keep, batches)
            measured["factors"] = {layer: torch.from_numpy(one.factors) for layer, one in worth.items()}
            measured["thresholds"] = {
                layer: float(np.sqrt(one.costs[~keep[layer]].max(initial=0))) for layer, one in worth.items()
            }

        def constrain(model: Darknet) -> list:
            return [Splicing(model, s.ratio, s.growth, s.power, s.seed, **measured)]

        return done | job.trained(constrain, solved=s.reconstruct > 0)

    return _thin(settings, "surgery", change, observer, stop)


def cheapest(worth: dict[int, Saliency], ratio: float) -> dict[int, np.ndarray]:
    """All weights of a network but a share of them, the layers losing least together."""
    costs = {layer: one.costs for layer, one in worth.items()}
    curves = {layer: one.errors for layer, one in worth.items()}
    return magnitude.all_but(costs, allot(curves, {k: cost.size for k, cost in costs.items()}, ratio))


def open_now(model: Darknet, share: float) -> dict[int, np.ndarray]:
    """What is not 0 stays, for a network whose zeros were chosen before it trains."""
    return {layer: (conv.weight != 0).cpu().numpy() for layer, conv in model.convolutions().items()}


class _Job:
    """What both jobs can do with their network."""

    def __init__(self, settings: Thinning, model: Darknet, out: Path, scores: Scores, observer, stop):
        self.settings, self.model, self.out, self.scores = settings, model, out, scores
        self.observer, self.stop, self.solved = observer, stop, solved_path(out)
        self.begun = settings.resume and self.solved.exists()  # a training of solved weights is gone on with
        self.progress = watched(observer, stop, "stopped; nothing was written")

    def zeroed(self, keep: dict[int, np.ndarray], batches: list) -> dict:
        """All else set to 0, and what stays solved again where there are batches; kept apart where a training
        follows.
        """
        s, sparse, fits = self.settings, twin(self.model), []
        magnitude.apply(sparse, keep)
        if batches:
            fits = resolved(s, self.model, sparse, batches, self.progress)
            settled(s, sparse, batches)
        done = {"model": sparse, "reconstruction": [vars(fit) for fit in fits]}
        if s.epochs:
            done["map50_solved"] = self.scores.of(sparse)
            for sentence in files.set_aside([self.solved], self.solved.stem):
                self.observer.say(sentence)
            checkpoints.save_checkpoint(self.solved, sparse, {"sparsified_from": str(s.weights)})
        return done

    def trained(self, constrain: Callable, solved: bool = False) -> dict:
        """Trains under constraints, from the weights of the job or from those that were solved; the training
        writes the weights.
        """
        settings = self.settings
        if solved:
            settings = replace(settings, weights=str(self.solved), resume=self.begun)
        parts = (self.out, constrain, self.observer, self.stop, solved)
        model, history = trained(settings, settings.epochs, *parts)
        return {"model": model, "history": history, "written": True}


def _thin(settings: Thinning, word: str, change: Callable, observer, stop) -> dict:
    began = time.perf_counter()
    observer, stop = observer or Observer(), StopFlag() if stop is None else stop
    out = sparse_path(settings, word)
    outputs = {"--out": out, "--out (.weights)": out.with_suffix(".weights")}
    if settings.reconstruct and settings.epochs:
        outputs["--out (_solved.pth)"] = solved_path(out)
    files.check_outputs(outputs, settings.reads())
    check_report(settings)
    devices.seed_everything(settings.seed)
    model = weights.load_model(settings.model_def, settings.weights)
    input_size(model.graph, settings.img_size)
    with Scores(settings, model, observer, stop, coco=True) as scores:
        before = scores.row(model)
        done = change(_Job(settings, model, out, scores, observer, stop))
        sparse = done.pop("model")
        after = scores.row(sparse)
    if not done.pop("written", False):
        extra = {"sparsified_from": str(settings.weights)}
        data = weights_bytes(sparse, 0)
        for sentence in files.set_aside([out, out.with_suffix(".weights")], out.stem):
            observer.say(sentence)
        checkpoints.save_checkpoint(out, sparse, extra, (out.with_suffix(".weights"), data))
    layers = magnitude.zeros(sparse)
    whole = sum(row["weights"] for row in layers)
    result = {
        "checkpoint": out,
        "weights": out.with_suffix(".weights"),
        "bytes_before": weights_size(model),
        "bytes_after": sparse_bytes(sparse),
        "zeros": sum(row["zeros"] for row in layers) / max(1, whole),
        "layers": layers,
        "map50_before": before and before["map50"],
        "map50_after": after and after["map50"],
        "before": before,
        "after": after,
        **done,
    }
    if settings.report is not None:
        result["report"] = sparse_page(settings, result, word, observer, stop)
    return {**result, "seconds": time.perf_counter() - began}


def solved_path(out: Path) -> Path:
    """Where the sparse weights lie while they are trained on."""
    return out.with_name(f"{out.stem}_solved.pth")


def sparse_path(settings: Thinning, word: str) -> Path:
    """Where the sparse weights go.

    Raises:
        RequestError: a name that is no checkpoint's.
    """
    path = Path(settings.weights)
    path = Path(settings.out) if settings.out else path.with_name(f"{path.stem}_{word}.pth")
    if path.suffix not in (".pth", ".weights"):
        raise RequestError("--out", str(path), "a name that ends in .pth")
    return path.with_suffix(".pth")


def sparse_bytes(model: Darknet) -> int:
    """Bytes of the weights where zeros are left out: each other one as float32 with its distance from the one
    before, where that is less; all else as it is.
    """
    total = weights_size(model)
    for conv in model.convolutions().values():
        codes = (conv.weight.detach().cpu().reshape(-1) != 0).numpy().astype("uint8")
        least = min(len(distances(codes, bits)[0]) * (32 + bits) // 8 for bits in GAPS)
        total -= max(0, 4 * len(codes) - least)
    return total
