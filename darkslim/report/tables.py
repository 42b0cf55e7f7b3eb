"""Tables for the terminal: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from terminaltables import AsciiTable

from ..latency.networks import WIDE


def comparison(before: dict, after: dict) -> str:
    """The reference's table: one row a metric, before and after pruning, and the change.

    Args:
        before, after: `map50` (or None), `params`, `macs`, `bytes` (of the .weights file), `latency`
            (seconds) with `latency_spread` (a share of it).
    """
    rows = [["", "before", "after", "change"]]
    if before["map50"] is not None:
        rows.append(
            [
                "mAP50",
                f"{before['map50']:.4f}",
                f"{after['map50']:.4f}",
                f"{after['map50'] - before['map50']:+.4f}",
            ]
        )
    macs, size = (
        ("G", 1e9) if before["macs"] >= 1e8 else ("M", 1e6),
        ("MB", 1e6) if before["bytes"] >= 1e6 else ("kB", 1e3),
    )
    for name, key, show in (
        ("parameters", "params", "{:,}".format),
        ("MACs", "macs", lambda v: f"{v / macs[1]:.3f} {macs[0]}"),
        ("size", "bytes", lambda v: f"{v / size[1]:.1f} {size[0]}"),
    ):
        rows.append([name, show(before[key]), show(after[key]), _change(before[key], after[key])])
    sides = [
        f"{1e3 * side['latency']:.1f} ms ±{100 * side['latency_spread']:.0f}%" for side in (before, after)
    ]
    wide = max(before["latency_spread"], after["latency_spread"]) > WIDE
    change = "not measurable here" if wide else _change(before["latency"], after["latency"])
    engine = before.get("engine", "torch")
    what = "latency, batch 1" + ("" if engine == "torch" else f", {engine}")
    return right([*rows, [what, *sides, change]])


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f}%, {before / after:.2f}x" if before and after else "-"


def scores(result: dict, iou_thres: float = 0.5) -> str:
    """One row a class, the means, and COCO's AP.

    Args:
        result: as `pipelines.evaluate` returns it.
    """
    ap = f"AP{100 * iou_thres:.0f}"
    rows = [["class", "name", ap, "precision", "recall", "F1", "truths", "detections"]]
    rows += [
        [
            str(c["class"]),
            c["name"],
            *(f"{c[key]:.4f}" for key in ("ap50", "precision", "recall", "f1")),
            str(c["truths"]),
            str(c["detections"]),
        ]
        for c in result["per_class"]
    ]
    means = (f"{result[key]:.4f}" for key in ("map50", "precision", "recall", "f1"))
    rows.append(["", "mean", *means, str(result["boxes"]), str(result["detections"])])
    table = AsciiTable(rows)
    table.inner_footing_row_border = True
    table.justify_columns = {0: "right", **dict.fromkeys(range(2, 8), "right")}
    return f"{table.table}\nm{ap} {result['map50']:.4f}, COCO AP .50:.95 {result['map']:.4f}"


def layers(rows: Sequence[tuple[int, int, int]], carriers: dict[int, int] | None = None) -> str:
    """Channels of each convolution: (layer, before, after); `carriers` says how many of those after are
    constants.
    """
    carriers = carriers or {}
    total = (sum(r[1] for r in rows), sum(r[2] for r in rows))
    table = [["layer", "channels before", "after", "kept", "carriers"]]
    table += [
        [str(n), str(a), str(b), f"{100 * b / a:.0f}%", str(carriers.get(n, 0) or "")] for n, a, b in rows
    ]
    table.append(
        [
            "all",
            str(total[0]),
            str(total[1]),
            f"{100 * total[1] / max(total[0], 1):.0f}%",
            str(sum(carriers.values()) or ""),
        ]
    )
    return right(table)


def protected(rows: Sequence[tuple[int, str]]) -> str:
    """What was not cut and why, layers of one reason together."""
    reasons: dict[str, list[int]] = {}
    for layer, reason in rows:
        reasons.setdefault(reason, []).append(layer)
    return "\n".join(
        f"  layer{'s' if len(ls) > 1 else ''} {', '.join(map(str, ls))}: {reason}"
        for reason, ls in reasons.items()
    )


def histogram(bins: Sequence[tuple[float, float, int]], width: int = 40) -> str:
    """Horizontal bars of (left edge, right edge, count)."""
    most = max((count for _, _, count in bins), default=1) or 1
    bars = [max(round(width * count / most), min(count, 1)) for _, _, count in bins]
    return "\n".join(
        f"  {a:8.4f} to {b:8.4f} {count:7d} {'#' * bar}"
        for (a, b, count), bar in zip(bins, bars, strict=True)
    )


def right(rows: list[list[str]]) -> str:
    """A table with a heading in its first row; all columns but the first are set to the right."""
    table = AsciiTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), "right")
    return table.table
