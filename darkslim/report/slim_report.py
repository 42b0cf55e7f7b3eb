"""A slim run for people: a line a step, the table at the end, and the picture of what was cut and what came
back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .tables import right

CUT, KEPT, LOST, BASE = (
    "#7570b3",
    "#1b9e77",
    "#d95f02",
    "#666666",
)  # told apart by colour-blind people, and by their markers


def line(row: dict, steps: int) -> str:
    """One step in one line."""
    return (
        f"step {row['step']} of {steps}: {row['params']:,} parameters, {row['macs'] / 1e6:.1f} M MACs, "
        f"mAP50 {row['map50_pruned']:.4f} "
        f"pruned, {row['map50_recovered']:.4f} recovered, {row['seconds']:.0f} s"
    )


def table(result: dict) -> str:
    """Every step of a run, the dense network first.

    Args:
        result: as `pipelines.slim` returns it.
    """
    chosen_on = any(row["choose_map50_recovered"] is not None for row in result["steps"])
    head = ["", "parameters", "MACs", "mAP50 sparse", "pruned", "recovered", "seconds"] + (
        ["on what chooses"] if chosen_on else []
    )
    rows = [
        head,
        [
            "dense",
            f"{result['params_before']:,}",
            f"{result['macs_before'] / 1e6:.1f} M",
            "",
            "",
            _score(result["dense_map50"]),
            "",
        ]
        + ([_score(result["dense_choose_map50"])] if chosen_on else []),
    ]
    for row in result["steps"]:
        mark = " *" if row["step"] == result["chosen"] else ""
        rows.append(
            [
                f"step {row['step']}{mark}",
                f"{row['params']:,}",
                f"{row['macs'] / 1e6:.1f} M",
                _score(row["map50_sparse"]),
                _score(row["map50_pruned"]),
                _score(row["map50_recovered"]),
                f"{row['seconds']:.0f}",
            ]
            + ([_score(row["choose_map50_recovered"])] if chosen_on else [])
        )
    return right(rows)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def figure(result: dict, title: str) -> Callable[[Path], None]:
    """MACs and parameters over the steps, and mAP pruned and recovered (the picture of DepGraph's YOLO
    example).

    Args:
        result: as `pipelines.slim` returns it.

    Returns:
        A writer for `files.Save`: called with a path, it writes the PNG there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    page = Figure(figsize=(9.6, 4.3), layout="constrained")
    FigureCanvasAgg(page)
    page.suptitle(title)
    sizes, scores = page.subplots(1, 2)
    steps = [0, *(row["step"] for row in result["steps"])]
    for key, name, colour, marker in (("macs", "MACs", CUT, "s"), ("params", "parameters", KEPT, "o")):
        values = [
            100 * v / result[f"{key}_before"]
            for v in (result[f"{key}_before"], *(row[key] for row in result["steps"]))
        ]
        sizes.plot(steps, values, color=colour, marker=marker, label=name)
        _label(sizes, steps, values, "{:.0f}%", colour)
    sizes.set(ylabel="share of the dense network, %", ylim=(0, 108), title="what is left")
    _scores(scores, result, steps)
    for axes in (sizes, scores):
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(-0.3, max(steps) + 0.3)
        axes.grid(alpha=0.3)
        if 0 < result["chosen"] < max(steps):
            axes.axvline(result["chosen"], color=BASE, linestyle=":", linewidth=1.2)
    sizes.legend()
    return lambda path: page.savefig(path, dpi=110, format="png")


def _scores(axes, result: dict, steps: Sequence[int]) -> None:
    rows, dense = result["steps"], result["dense_map50"]
    axes.axhline(dense, color=BASE, linewidth=1, linestyle="--", label=f"dense {dense:.3f}")
    recovered = [dense, *(row["map50_recovered"] for row in rows)]
    axes.plot(steps, recovered, color=KEPT, marker="o", label="recovered by finetuning")
    axes.plot(
        steps[1:],
        [row["map50_pruned"] for row in rows],
        color=LOST,
        marker="v",
        linestyle="none",
        label="just cut",
    )
    for row, start in zip(
        rows, recovered, strict=False
    ):  # from where each step began, down to its cut, and up again
        axes.plot(
            [row["step"] - 1, row["step"], row["step"]],
            [start, row["map50_pruned"], row["map50_recovered"]],
            color=LOST,
            linewidth=0.8,
            alpha=0.6,
        )
    _label(axes, steps[1:], recovered[1:], "{:.3f}", KEPT)
    if result["max_map_drop"] is not None:
        axes.axhline(
            dense - result["max_map_drop"],
            color=LOST,
            linewidth=1,
            linestyle="--",
            label=f"drop of {result['max_map_drop']:g} (judged on other pictures)",
        )
    top = max([dense, *recovered])
    axes.set(ylabel="mAP50", ylim=(0, min(1.05, max(top, 0.05) * 1.18)), title="accuracy")
    axes.legend(loc="lower left", fontsize=8)


def _label(axes, steps: Sequence[int], values: Sequence[float], form: str, colour: str) -> None:
    every = max(1, len(steps) // 8)
    for x, y in list(zip(steps, values, strict=True))[::-1][::every]:
        axes.annotate(
            form.format(y),
            (x, y),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=8,
            color=colour,
        )
