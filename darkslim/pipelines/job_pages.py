"""What the page of each job holds beside what all pages hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..base.observer import Observer
from ..base.signals import StopFlag
from ..network import weights
from ..report import page_figures, page_parts
from ..report.page import Picture, Section, Table, Text
from .measured_page import Side, write_page

PER_LAYER = 400  # rows of a table of layers


def prune_page(settings, result: Mapping, observer: Observer, stop: StopFlag, images: Path | None) -> Path:
    """The page of a cut.

    Args:
        settings, result: of `prune`. images: the list that judged; None: `valid`.
    """
    sides = Side(settings.model_def, settings.model), Side(str(result["cfg"]), str(result["checkpoint"]))
    proof = Text(
        "The cut network equals the masked one: the largest difference of any value of the maps"
        f" before the heads "
        f"was {result['max_abs_diff']:.1e}. {result['cut']:,} of "
        f"{result['prunable']:,} channels that may go went "
        f"(strategy {result['strategy']}, score {result['score']}, folding {result['fold']})."
    )
    middle = [
        Section("The cut", [proof, *_repair(result), *_gammas(sides, result.get("threshold"))]),
        _network_picture(result["picture"]),
        page_parts.layers(result["layers"]),
        page_parts.protected(result["protected"]),
    ]
    title = f"{Path(settings.model_def).name}, pruned"
    return write_page(
        settings,
        "test_prune.py",
        title,
        sides,
        middle,
        observer,
        stop,
        images=images,
        evaluate=not settings.no_eval,
    )


def slim_page(settings, result: Mapping, dense: tuple[str, str], observer: Observer, stop: StopFlag) -> Path:
    """The page of a slim run.

    Args:
        settings, result: of `slim`. dense: cfg and weights of the network before all cuts.
    """
    sides = Side(*dense), Side(str(result["cfg"]), str(result["checkpoint"]))
    rows = []
    points = [("dense", result["macs_before"], result["dense_map50"])]
    for row in result["steps"]:
        scores = [row["map50_sparse"], row["map50_pruned"], row["map50_recovered"]]
        shown = ["" if score is None else f"{score:.4f}" for score in scores]
        mark = " (handed back)" if row["step"] == result["chosen"] else ""
        rows.append(
            [f"step {row['step']}{mark}", f"{row['params']:,}", f"{row['macs'] / 1e6:,.1f} M", *shown]
        )
        points.append((f"step {row['step']}", row["macs"], row["map50_recovered"]))
    head = ["", "parameters", "MACs", "mAP50 sparse", "cut", "finetuned"]
    curve = Picture(Path(result["picture"]).read_bytes(), "The same numbers as curves over the steps")
    middle = [
        Section("Steps", [Table("Every step of the run", head, rows), curve]),
        _gammas_over_time(Path(settings.work)),
        Section("Gammas before and after", _gammas(sides, None)),
        _widths(sides),
    ]
    title = f"{Path(settings.model_def).name}, slimmed by the recipe {Path(settings.recipe).stem}"
    return write_page(settings, "slim.py", title, sides, middle, observer, stop, points=points)


def sparse_page(settings, result: Mapping, word: str, observer: Observer, stop: StopFlag) -> Path:
    """The page of `sparsify` or `surgery`."""
    sides = (
        Side(settings.model_def, settings.weights),
        Side(settings.model_def, str(result["checkpoint"]), result["bytes_after"]),
    )
    rows = []
    for row in result["layers"][:PER_LAYER]:
        share = row["zeros"] / max(1, row["weights"])
        rows.append([str(row["layer"]), f"{row['weights']:,}", f"{row['zeros']:,}", share, f"{share:.1%}"])
    said = Text(
        "Zeros among the weights change neither the time nor the .weights file; the bytes above"
        " are those of a file "
        "without them. compress.py pack makes it smaller still."
    )
    table = Table("Zeros of every layer", ["layer", "weights", "zeros", "", "share"], rows)
    middle = [Section("Zeros", [said, table]), _surgery_curve(result.get("history") or [])]
    title = f"{Path(settings.weights).name}, {word}: {result['zeros']:.0%} zeros"
    return write_page(
        settings,
        f"compress.py {'surgery' if word == 'surgery' else 'sparsify'}",
        title,
        sides,
        middle,
        observer,
        stop,
        evaluate=not settings.no_eval,
    )


def pack_page(settings, result: Mapping, figure: Callable, observer: Observer, stop: StopFlag) -> Path:
    """The page of `pack`.

    Args:
        figure: writes the picture of the bytes of every layer.
    """
    sides = (
        Side(settings.model_def, settings.weights),
        Side(settings.model_def, str(result["file"]), result["bytes_after"]),
    )
    whole = result["stages"][0]["bytes"]
    scored = {"float32": result["map50_before"], "coded": result["map50_after"]}
    stages = []
    for stage in result["stages"]:
        score = scored.get(stage["name"])
        shown = "" if score is None else f"{score:.4f}"
        stages.append([stage["name"], f"{stage['bytes']:,}", f"{whole / max(1, stage['bytes']):.1f}x", shown])
    least = max(1.0, result["entropy"])
    stages.append(["entropy bound", f"{round(least):,}", f"{whole / least:.1f}x", ""])
    picture = Picture(
        page_figures.drawn(figure),
        "Bytes of the kernels of every layer at each stage, on a logarithmic scale",
    )
    rows = [
        [
            str(row["layer"]),
            f"{row['count']:,}",
            f"{1 - row['kept'] / max(1, row['count']):.1%}",
            str(row["values"] or "-"),
            f"{row['coded']:,}",
            f"{8 * row['coded'] / max(1, row['count']):.2f}",
        ]
        for row in result["layers"][:PER_LAYER]
    ]
    head = ["layer", "weights", "zeros", "values", "bytes", "bits a weight"]
    middle = [
        Section(
            "Bytes",
            [
                Table("By stage", ["stage", "bytes", "smaller", "mAP50"], stages),
                picture,
                Table("By layer", head, rows),
            ],
        )
    ]
    title = f"{Path(settings.weights).name}, packed"
    return write_page(
        settings, "compress.py pack", title, sides, middle, observer, stop, evaluate=not settings.no_eval
    )


def _repair(result: Mapping) -> list:
    for how in ("recalibrated", "reconstructed"):
        if result[how]:
            before, after = result["map50_folded"], result["map50_after"]
            scores = "" if before is None else f": mAP50 {before:.4f} before, {after:.4f} after"
            return [Text(f"Then {how} on {result[how]} training pictures{scores}.")]
    return []


def _gammas(sides, threshold: float | None) -> list:
    """The histogram of the gammas, where there are any."""
    found = []
    for side in sides:
        norms = weights.load_model(side.cfg, side.weights).batch_norms().values()
        values = [bn.weight.detach().abs().numpy() for bn in norms]
        found.append(np.concatenate(values) if values else np.zeros(0))
    if not len(found[0]):
        return []
    words = "Histogram of the absolute gammas of all batch norms before and after"
    shown = page_figures.gamma_histogram(*found, threshold)
    return [Picture(shown, words, "Absolute gammas of all batch norms, protected ones too")]


def _network_picture(path) -> Section:
    """Every layer as it was and as it is."""
    words = (
        "Every layer in its order, convolutions as bars as high as their channels; numbers in the "
        "table of widths"
    )
    return Section("The network", [Picture(Path(path).read_bytes(), words)])


def _widths(sides) -> Section:
    """Widths where layers have kept their numbers."""
    before, after = (weights.load_model(side.cfg, side.weights).convolutions() for side in sides)
    if before.keys() != after.keys():
        return Section("Widths", [])
    rows = [
        {"layer": i, "before": conv.out_channels, "after": after[i].out_channels}
        for i, conv in before.items()
    ]
    return page_parts.layers(rows)


def _gammas_over_time(work: Path) -> Section:
    """The pictures that sparsity training drew."""
    found = sorted((work / "logs").glob("**/gammas.png"))
    words = (
        "Gammas over the epochs: quintiles of all prunable ones, those of the first layer, and "
        "their histogram"
    )
    return Section(
        "Gammas over time", [Picture(path.read_bytes(), words, path.parent.name) for path in found]
    )


def _surgery_curve(history: list[Mapping]) -> Section:
    """Share of weights that are gone, and that came back, over the epochs of surgery."""
    rows = [row for row in history if row.get("zeros") is not None and row.get("returned") is not None]
    if not rows:
        return Section("Surgery", [])
    picture = Picture(page_figures.surgery(rows), "Shares over the epochs; numbers in the table")
    shown = [
        [str(row["epoch"]), *(f"{100 * row[key]:.2f}%" for key in ("zeros", "returned", "again"))]
        for row in rows
    ]
    head = ["epoch", "pruned", "came back", "went and came more than once"]
    return Section("Surgery", [picture, Table("Shares of all weights", head, shown)])
