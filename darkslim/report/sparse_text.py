"""What became of a network of which many weights were set to 0."""

from __future__ import annotations

from collections.abc import Sequence

from .tables import right


def by_layer(layers: Sequence[dict]) -> str:
    """One row a layer, as measured."""
    rows = [["layer", "weights", "zeros", "share"]]
    for row in layers:
        share = row["zeros"] / max(1, row["weights"])
        rows.append([str(row["layer"]), f"{row['weights']:,}", f"{row['zeros']:,}", f"{share:.1%}"])
    return right(rows)


def validation(before: dict, after: dict) -> str:
    """The table of a validation, before and after."""
    rows = [["", "images", "truths", "precision", "recall", "mAP50", "mAP", "seconds"]]
    for name, row in (("before", before), ("after", after)):
        shares = [f"{row[key]:.4f}" for key in ("precision", "recall", "map50", "map")]
        rows.append([name, str(row["images"]), str(row["boxes"]), *shares, f"{row['seconds']:.1f}"])
    return right(rows)


def sizes(before: int, after: int, zeros: float) -> str:
    """What the zeros change, and what not."""
    return (
        f"zeros:      {zeros:.1%} of the kernels' weights. Time and the .weights file ({before:,} bytes)\n"
        f"            do not change; without the zeros it would be {after:,} bytes, and compress.py pack\n"
        "            makes it smaller still"
    )
