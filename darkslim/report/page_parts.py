"""The sections of the page that every command shares: what was gained, classes, layers, times, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from . import page_figures
from .boxes_drawn import draw, encoded
from .page import Facts, Pair, Picture, Section, Table, Text
from .pr_curve import pr_curve


def gained(before: Mapping, after: Mapping) -> Section:
    """The table of the two networks.

    Args:
        before, after: params, macs, bytes, map50, map (None where not measured).
    """
    rows = []
    for name, key, show in (
        ("mAP50", "map50", "{:.4f}".format),
        ("COCO AP .50:.95", "map", "{:.4f}".format),
        ("parameters", "params", "{:,}".format),
        ("multiply-adds of a picture", "macs", lambda v: f"{v / 1e6:,.1f} M"),
        ("bytes of the weights", "bytes", "{:,}".format),
    ):
        a, b = before[key], after[key]
        if a is not None and b is not None:
            change = f"{b - a:+.4f}" if key.startswith("map") else f"{100 * (b / a - 1):+.1f}%" if a else "-"
            rows.append([name, show(a), show(b), change])
    return Section("What it came to", [Table("Before and after", ["", "before", "after", "change"], rows)])


def times(found: Mapping[str, Sequence | None], scores: tuple[float | None, float | None]) -> Section:
    """Milliseconds by engine.

    Args:
        found: engine -> `Timing` before and after; None where it is not installed.
        scores: mAP50 before and after.
    """
    rows, absent = [], [name for name, timings in found.items() if timings is None]
    for name, timings in found.items():
        if timings is not None:
            a, b = timings
            quick = f"{a.seconds / b.seconds:.2f}x" if a.measurable and b.measurable else "unsteady"
            ms = [f"{1e3 * t.seconds:.1f} ±{100 * t.spread:.0f}%" for t in (a, b)]
            rows.append([name, *ms, quick])
    blocks: list = [
        Table(
            "Milliseconds of one picture on this machine, batch 1",
            ["engine", "before", "after", "faster"],
            rows,
        )
    ]
    if None not in scores and rows:
        points = [(name, t[0].seconds, t[1].seconds) for name, t in found.items() if t is not None]
        shown = page_figures.times_and_scores(points, *scores)
        blocks.append(Picture(shown, "mAP50 against milliseconds, one line an engine; numbers in the table"))
    if absent:
        blocks.append(Text(f"Not installed, or without a layer that it needs: {', '.join(absent)}."))
    return Section("Time, by engine", blocks if rows else [])


def classes(before, after, names: Sequence[str], iou: float) -> Section:
    """AP of every class, and the curves.

    Args:
        before, after: `evaluation.Result`.
    """
    old = {row["class"]: row for row in before.per_class}
    new = {row["class"]: row for row in after.per_class}
    rows = []
    for label in sorted(old | new):
        a, b = (side.get(label, {"ap50": 0.0, "truths": 0}) for side in (old, new))
        name = names[label] if label < len(names) else str(label)
        rows.append(
            [name, str(a["truths"]), f"{a['ap50']:.4f}", f"{b['ap50']:.4f}", f"{b['ap50'] - a['ap50']:+.4f}"]
        )
    head = ["class", "truths", "AP before", "AP after", "change"]
    blocks: list = [Table(f"Average precision by class, at overlap {iou:g}", head, rows)]
    curves = [
        page_figures.drawn(pr_curve(side.scores, names, f"{name}: mAP {side.map50:.4f}"))
        for side, name in ((before, "before"), (after, "after"))
    ]
    words = "Precision over recall {}, one line a class; the areas are the APs above"
    blocks.append(Pair("Precision over recall", *curves, words.format("before"), words.format("after")))
    return Section("Classes", blocks)


def layers(rows: Sequence[Mapping]) -> Section:
    """The width of every convolution: layer, before, after, carriers."""
    shown = []
    for row in rows:
        kept = row["after"] / row["before"]
        carriers = str(row.get("carriers") or "")
        shown.append(
            [str(row["layer"]), str(row["before"]), str(row["after"]), kept, f"{100 * kept:.0f}%", carriers]
        )
    head = ["layer", "before", "after", "", "kept", "carriers"]
    said = Text(
        "Carriers are channels that hold nothing but the constant that cut channels left; exact"
        " folding needs "
        "them where a border would see the difference."
    )
    carries = any(row.get("carriers") for row in rows)
    blocks = [Table("Channels of every convolution", head, shown), *([said] if carries else [])]
    return Section("Widths", blocks if shown else [])


def protected(rows: Sequence[Mapping]) -> Section:
    """What was not cut, and why: layer, reason."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(row["reason"], []).append(str(row["layer"]))
    shown = [[", ".join(found), reason] for reason, found in reasons.items()]
    return Section(
        "What was protected",
        [Facts([(f"layer{'s' * (',' in a)} {a}", b) for a, b in shown])] if shown else [],
    )


def examples(items: Sequence[Mapping]) -> Section:
    """Pictures before and after.

    Args:
        items: name, pixels (uint8 (H, W, C)), before and after (lists of detections as `boxes_drawn.draw`
            takes them), truths (number), lost and new (numbers of detections).
    """
    blocks: list = []
    for item in items:
        sides = [
            encoded(draw(Image.fromarray(np.ascontiguousarray(item["pixels"].squeeze())), item[side]), ".jpg")
            for side in ("before", "after")
        ]
        counts = [len(item["before"]), len(item["after"])]
        changed = (
            f"{item['lost']} lost, {item['new']} new" if item["lost"] or item["new"] else "nothing changed"
        )
        words = (
            f"{item['name']}: {item['truths']} objects; {counts[0]} found before, {counts[1]} after:"
            f" {changed}"
        )
        alts = [
            f"{item['name']} with {n} boxes, {when}"
            for n, when in zip(counts, ("before", "after"), strict=True)
        ]
        blocks.append(Pair(words, *sides, *alts))
    if blocks:
        blocks.insert(0, Text("The pictures whose detections changed most come first."))
    return Section("Pictures", blocks)
