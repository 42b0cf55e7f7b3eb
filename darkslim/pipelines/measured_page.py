"""The page of a job: both networks measured side by side, and all that is worth looking at in one HTML
file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .. import evaluation
from ..base import devices, files
from ..base.boxes import iou_matrix
from ..base.errors import RequestError
from ..base.observer import Observer, watched
from ..base.options import default_of, flag, options
from ..base.signals import StopFlag
from ..data import datafile
from ..data.dataset import ListDataset, to_input
from ..data.loader import make_loader
from ..data.plain import plain_dataset
from ..network import profile, weights
from ..network.graph import input_size
from ..report import page_figures, page_parts
from ..report.envelope import versions
from ..report.machine import describe
from ..report.page import Code, Facts, Page, Picture, Section
from .engine_times import engine_times

LOOKED_AT, SHOWN = 64, 6  # pictures among which those are sought that changed most, and how many are shown
SCORE, SAME = 0.3, 0.5  # least score of a box that is shown, and the overlap from which two are one


@dataclass(frozen=True)
class Side:
    """A network on the disk, and how many bytes its weights take there; None: as a .weights file."""

    cfg: str
    weights: str
    bytes: int | None = None


def page_path(folder: str) -> Path:
    """The file of the page."""
    return Path(folder) / "index.html"


def write_page(
    settings,
    command: str,
    title: str,
    sides: tuple[Side, Side],
    middle: Sequence[Section],
    observer: Observer,
    stop: StopFlag,
    points: Sequence[tuple[str, float, float]] = (),
    images: Path | None = None,
    evaluate: bool = True,
) -> Path:
    """Measures two networks and writes the page of a job into the folder `settings.report`.

    Args:
        settings: of the job. command: its script.
        sides: before and after. middle: the sections that only this job has.
        points: (name, MACs, mAP50) of what lay between them.
        images: the list to measure on; None: `valid`. evaluate: whether there is a data set.

    Returns:
        The file.
    """
    progress = watched(observer, stop, "stopped while the page was made; all else is written")
    models = [weights.load_model(side.cfg, side.weights) for side in sides]
    size = input_size(models[0].graph, getattr(settings, "img_size", None))
    device = devices.device(settings.device)
    facts = []
    for model, side in zip(models, sides, strict=True):
        counted = profile.count(model.graph)
        size_of = weights.model_bytes(model) if side.bytes is None else side.bytes
        facts.append(
            {"params": counted.params, "macs": counted.macs, "bytes": size_of, "map50": None, "map": None}
        )
    measured, looked, names = [], Section("Pictures", []), []
    if evaluate:
        config = datafile.read_data(settings.data_config)
        names = config.names
        if images is not None:
            config = replace(config, valid=images)
        dataset = plain_dataset(
            models[0], config, "valid", settings.img_size, progress, settings.resize, **settings.reading
        )
        for model, fact in zip(models, facts, strict=True):
            result = _measure(model, dataset, names, settings, device, progress)
            fact |= {"map50": result.map50, "map": result.map}
            measured.append(result)
        looked = page_parts.examples(_changed(models, dataset, names, settings, device))
    timed = engine_times([(side.cfg, side.weights) for side in sides], size, progress)
    stop.check("stopped while the page was made; all else is written")
    scores = tuple(fact["map50"] for fact in facts)
    sections = [page_parts.gained(*facts), page_parts.times(timed, scores)]
    if measured:
        points = points or [("before", facts[0]["macs"], scores[0]), ("after", facts[1]["macs"], scores[1])]
        chart = page_figures.sizes_and_scores(points)
        words = "mAP50 against multiply-adds: " + ", ".join(
            f"{n} {m / 1e6:.0f} M {s:.4f}" for n, m, s in points
        )
        sections.append(Section("Accuracy and size", [Picture(chart, words)]))
        sections.append(page_parts.classes(*measured, names, getattr(settings, "iou_thres", 0.5)))
    sections += [looked, *middle, _origin(settings, command)]
    page = Page(title, _summary(facts, timed), sections, f"Made by {command} of darkslim.")
    files.save(page_path(settings.report), page.html())
    return page_path(settings.report)


def _measure(model, dataset: ListDataset, names, settings, device, progress) -> evaluation.Result:
    batch = getattr(settings, "eval_batch_size", None) or getattr(settings, "batch_size", 16)
    with make_loader(dataset, batch, workers=settings.n_cpu, seed=settings.seed) as loader:
        result = evaluation.evaluate(
            model.to(device),
            loader,
            iou_thres=getattr(settings, "iou_thres", 0.5),
            conf_thres=getattr(settings, "conf_thres", 0.01),
            nms_thres=getattr(settings, "nms_thres", 0.5),
            names=names,
            progress=progress,
            ignored=dataset.ignored(),
        )
    return result


def _changed(models, dataset: ListDataset, names, settings, device) -> list[dict]:
    """The pictures whose detections changed most, the first ones of equals."""
    found = []
    for index in range(min(LOOKED_AT, len(dataset))):
        pixels, rows = dataset.load(index)
        x = to_input(torch.from_numpy(pixels).permute(2, 0, 1)[None], device)
        sides = []
        for model in models:
            with torch.inference_mode():
                boxes = evaluation.detections(model(x), SCORE, getattr(settings, "nms_thres", 0.5))[0]
            sides.append(boxes[boxes[:, 4] >= SCORE])
        lost, new = _unmatched(*sides), _unmatched(*sides[::-1])
        name = Path(dataset.report.images[index]).name
        found.append(
            {
                "name": name,
                "pixels": pixels,
                "truths": len(rows),
                "lost": lost,
                "new": new,
                "before": _named(sides[0], names),
                "after": _named(sides[1], names),
            }
        )
    return sorted(found, key=lambda item: -(item["lost"] + item["new"]))[:SHOWN]


def _unmatched(boxes: torch.Tensor, others: torch.Tensor) -> int:
    """How many boxes (n, 6) have none of their class among others that overlaps by SAME."""
    if not len(boxes) or not len(others):
        return len(boxes)
    same = (iou_matrix(boxes[:, :4], others[:, :4]) >= SAME) & (boxes[:, None, 5] == others[None, :, 5])
    return int((~same.any(1)).sum())


def _named(boxes: torch.Tensor, names) -> list[dict]:
    return [
        {
            "class": int(row[5]),
            "name": names[int(row[5])],
            "score": float(row[4]),
            **dict(zip(("x1", "y1", "x2", "y2"), (float(v) for v in row[:4]), strict=True)),
        }
        for row in np.asarray(boxes)
    ]


def _summary(facts: Sequence[Mapping], timed: Mapping) -> str:
    a, b = facts
    said = [
        f"{a['params'] / b['params']:.1f} times fewer parameters",
        f"{a['macs'] / b['macs']:.1f} times fewer multiply-adds",
    ]
    if a["map50"] is not None:
        said.append(f"mAP50 {a['map50']:.4f} before and {b['map50']:.4f} after")
    steady = {name: t for name, t in timed.items() if t is not None and all(one.measurable for one in t)}
    if steady:
        name = min(steady, key=lambda name: steady[name][1].seconds)
        first, last = (1e3 * timing.seconds for timing in steady[name])
        said.append(f"{first:.1f} ms before and {last:.1f} ms after in {name}, the quickest engine here")
    return "; ".join(said) + "."


def _origin(settings, command: str) -> Section:
    """The command to do it again, and what it ran on."""
    machine = [(key, str(value)) for key, value in {**describe(), **versions()}.items() if value is not None]
    return Section("To do it again", [Code(command_line(settings, command)), Facts(machine)])


def command_line(settings, command: str) -> str:
    """The words that give these settings: the command, and every flag that is not at its default."""
    lines = [f"python {command}"]
    for name in options(type(settings)):
        value = getattr(settings, name)
        if value is None or value == default_of(type(settings), name):
            continue
        word = flag(type(settings), name)
        lines.append(word if isinstance(value, bool) else f"{word} {_shown(value)}")
    return " \\\n    ".join(lines)


def _shown(value) -> str:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], bool):
        number, absolute = value
        if not absolute:
            return f"{number:g}"
        return (
            f"{number * 1e3:g}ms" if number < 1 else f"{number / 1e6:g}M" if number > 1e3 else f"{number:g}s"
        )
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple):
        return " ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    text = str(value)
    return f"'{text}'" if any(c in text for c in " *?$&;()<>|") else text


def check_report(settings) -> None:
    """Raises:
    RequestError: a folder for the page that cannot be.
    """
    if settings.report is not None and Path(settings.report).is_file():
        raise RequestError("--report", f"{settings.report} is a file", "a folder")
