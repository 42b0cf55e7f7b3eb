"""Draws docs/pictures/how_it_works.png, the picture of the README: `python docs/pictures/how_it_works.py`.

The curves are sketches, not measurements.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, QUIET, KEEP, CUT, ORANGE, TIE = "#1d2733", "#8693a1", "#2f7fb8", "#dfe5ea", "#e08a1e", "#4c9f70"
CUT_ROWS = (1, 4, 5)


def panel(ax, number: int, title: str, words: str) -> None:
    ax.set(xlim=(0, 10), ylim=(0, 10))
    ax.axis("off")
    ax.text(0.2, 10.5, f"{number}  {title}", fontsize=12, weight="bold", color=INK)
    ax.text(0.2, -0.4, words, fontsize=8.6, color=INK, va="top", linespacing=1.4)


def column(ax, x: float, label: str, fade: bool = True, rows=range(7), carrier: int | None = None) -> None:
    """A convolution as a column of channels; cut ones are pale, the carrier is orange."""
    for row in rows:
        cut = row in CUT_ROWS and fade
        face = ORANGE if row == carrier else CUT if cut else KEEP
        ax.add_patch(
            Rectangle(
                (x, 7.6 - row),
                1.3,
                0.8,
                facecolor=face,
                edgecolor=QUIET if cut else "white",
                lw=0.8,
                ls=":" if cut else "-",
            )
        )
    ax.text(x + 0.65, 0.7, label, ha="center", fontsize=8, color=QUIET)


def arrow(ax, start, end, color=INK, bend: float = 0.0) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=color,
            lw=1.2,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def read(ax) -> None:
    panel(ax, 1, "Read", "The .cfg becomes a graph.\nNo layer number and no family\nname is built in.")
    names = ("convolutional", "convolutional", "shortcut", "route", "yolo")
    for i, name in enumerate(names):
        y = 8.0 - 1.75 * i
        ax.add_patch(
            FancyBboxPatch(
                (2.2, y), 5.2, 1.0, boxstyle="round,pad=0.1", facecolor="white", edgecolor=INK, lw=1.1
            )
        )
        ax.text(
            4.8, y + 0.5, f"[{name}]", ha="center", va="center", fontsize=8.6, family="monospace", color=INK
        )
        if i:
            arrow(ax, (4.8, y + 1.65), (4.8, y + 1.1))
    arrow(ax, (7.5, 8.5), (7.5, 5.0), TIE, -0.7)
    arrow(ax, (2.1, 6.7), (2.1, 3.2), TIE, 0.7)


def sparsify(ax) -> None:
    panel(
        ax,
        2,
        "Train sparse",
        "A penalty presses the batch-norm\ngammas that the result does not\nneed towards zero.",
    )
    x = np.linspace(0, 1.6, 160)
    dense = np.exp(-0.5 * ((x - 1.0) / 0.17) ** 2)
    sparse = 1.15 * np.exp(-x / 0.09) + 0.45 * np.exp(-0.5 * ((x - 0.8) / 0.19) ** 2)
    left, bottom, wide, high = 0.8, 1.6, 8.6, 6.2
    for y, color, name, at in ((dense, QUIET, "before", (1.24, 0.62)), (sparse, KEEP, "after", (0.18, 0.85))):
        ax.fill_between(left + wide * x / 1.6, bottom, bottom + high * y, color=color, alpha=0.35, lw=0)
        ax.plot(left + wide * x / 1.6, bottom + high * y, color=color, lw=1.6)
        ax.text(left + wide * at[0] / 1.6, bottom + high * at[1], name, color=color, fontsize=9)
    ax.plot([left, left + wide], [bottom, bottom], color=INK, lw=1)
    ax.plot([left + wide * 0.37 / 1.6] * 2, [bottom, bottom + high * 0.72], color=ORANGE, lw=1.3, ls="--")
    ax.text(left + wide * 0.40 / 1.6, bottom + high * 0.70, "threshold", color=ORANGE, fontsize=8.6)
    ax.text(left, 0.6, "0", fontsize=8, color=QUIET)
    ax.text(left + wide, 0.6, "|gamma|", fontsize=8, color=QUIET, ha="right")


def plan(ax) -> None:
    panel(
        ax,
        3,
        "Plan",
        "Channels that a shortcut adds form one\nclass. A class is kept or cut as a whole,\nwherever it "
        "goes.",
    )
    column(ax, 0.8, "conv a")
    column(ax, 4.3, "conv b")
    column(ax, 7.8, "a + b")
    for row in range(7):
        y = 8.0 - row
        ax.plot([2.15, 4.25], [y, y], color=TIE, lw=1.0, alpha=0.35 if row in CUT_ROWS else 0.9)
        ax.plot([5.65, 7.75], [y, y], color=TIE, lw=1.0, alpha=0.35 if row in CUT_ROWS else 0.9)


def cut(ax) -> None:
    panel(
        ax,
        4,
        "Cut exactly",
        "A cut channel is not zero but the\nconstant act(beta). It goes into its\nreaders' bias, or into "
        "one carrier.",
    )
    column(ax, 0.8, "masked")
    column(
        ax,
        7.4,
        "compact",
        fade=False,
        rows=[row for row in range(7) if row not in CUT_ROWS[1:]],
        carrier=CUT_ROWS[0],
    )
    for row in CUT_ROWS:
        arrow(ax, (2.2, 8.0 - row), (7.3, 7.0), ORANGE, 0.05 * (row - 1))
    ax.text(4.7, 8.1, "act(beta)", ha="center", fontsize=8.6, color=ORANGE)


def prove(ax) -> None:
    panel(
        ax,
        5,
        "Prove and write",
        "Both files are read back from disk and\ncompared with the masked network\nbefore the command says "
        "that it is done.",
    )
    for y, name in ((7.2, "masked network"), (4.3, "new .cfg + .weights")):
        ax.add_patch(
            FancyBboxPatch(
                (0.7, y), 8.2, 1.3, boxstyle="round,pad=0.1", facecolor="white", edgecolor=INK, lw=1.1
            )
        )
        ax.text(4.8, y + 0.65, name, ha="center", va="center", fontsize=9, color=INK)
    ax.text(4.8, 6.4, "=", ha="center", va="center", fontsize=20, color=TIE, weight="bold")
    arrow(ax, (4.8, 4.1), (4.8, 2.6))
    ax.text(4.8, 1.6, "ready to finetune\nand to deploy", ha="center", va="center", fontsize=9, color=INK)


def main() -> Path:
    """Draws the picture and returns its path."""
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.9), dpi=110)
    figure.subplots_adjust(left=0.015, right=0.99, top=0.88, bottom=0.24, wspace=0.12)
    for draw, ax in zip((read, sparsify, plan, cut, prove), axes, strict=True):
        draw(ax)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, facecolor="white")
    plt.close(figure)
    return path


if __name__ == "__main__":
    print(main())
