"""Three pictures of the gammas during training: quintiles, one layer, histogram, all over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..base import files

BINS = 60
MOST_LINES = 256


@dataclass
class GammaTrace:
    """How the gammas moved; one entry an epoch.

    Attributes:
        epochs: epoch numbers.
        quintiles: six borders each: least, 20%, 40%, 60%, 80%, greatest |gamma| of all prunable channels.
        first: gammas of the first BatchNorm layer, signed.
        counts: how many prunable gammas lie in each of BINS equal bins of `limits`.
    """

    epochs: list[int] = field(default_factory=list)
    quintiles: list[list[float]] = field(default_factory=list)
    first: list[list[float]] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)
    limits: tuple[float, float] = (-0.5, 2.5)

    def add(self, epoch: int, quintiles: list[float], first: np.ndarray, gammas: np.ndarray) -> None:
        """Remembers one moment; what lies outside of `limits` is counted in the outermost bins."""
        self.epochs.append(int(epoch))
        self.quintiles.append([float(q) for q in quintiles])
        self.first.append([float(v) for v in first])
        inside = np.clip(np.asarray(gammas, np.float64), *self.limits)
        self.counts.append(np.histogram(inside, BINS, self.limits)[0].tolist())

    def to_dict(self) -> dict:
        return {
            "epochs": self.epochs,
            "quintiles": self.quintiles,
            "first": self.first,
            "counts": self.counts,
        }

    @classmethod
    def from_dict(cls, state: dict) -> GammaTrace:
        return cls(**{name: list(state[name]) for name in ("epochs", "quintiles", "first", "counts")})

    def draw(self, path) -> Path | None:
        """Writes the three panels as one PNG; None (and no file) without an entry."""
        if not self.epochs or not self.quintiles[0]:
            return None
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(15, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        left, middle, right = figure.subplots(1, 3)
        self._quintiles(left)
        self._first(middle)
        self._histogram(right, figure)
        for axes in (left, middle, right):
            axes.set_xlabel("epoch")
        files.save(path, lambda temp: figure.savefig(temp, dpi=110, format="png"))
        return Path(path)

    def _quintiles(self, axes) -> None:
        borders = np.array(self.quintiles)
        x = self.epochs if len(self.epochs) > 1 else [self.epochs[0] - 0.5, self.epochs[0] + 0.5]
        borders = borders if len(borders) > 1 else np.repeat(borders, 2, 0)
        for i in range(borders.shape[1] - 1):
            axes.fill_between(
                x,
                borders[:, i],
                borders[:, i + 1],
                color=_colour("viridis", i / 4),
                alpha=0.75,
                label=f"{20 * i} to {20 * (i + 1)}%",
            )
        axes.set_title("|gamma| of all prunable channels, by quintile")
        axes.set_ylabel("|gamma|")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right", fontsize=8)

    def _first(self, axes) -> None:
        lines = np.array(self.first)
        shown = lines[:, :MOST_LINES]
        axes.plot(self.epochs, shown, linewidth=0.9, marker="." if len(self.epochs) < 3 else None)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_title(f"gammas of the first BatchNorm layer ({lines.shape[1]} channels)")
        axes.set_ylabel("gamma")

    def _histogram(self, axes, figure) -> None:
        counts = np.array(self.counts, float).T
        counts /= np.maximum(1, counts.sum(0))
        extent = (self.epochs[0] - 0.5, self.epochs[-1] + 0.5, *self.limits)
        image = axes.imshow(
            counts**0.5, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest"
        )
        bar = figure.colorbar(image, ax=axes)
        bar.set_label("square root of the share of channels")
        axes.set_title("histogram of all prunable gammas")
        axes.set_ylabel("gamma")


def _colour(name: str, at: float):
    from matplotlib import colormaps

    return colormaps[name](0.1 + 0.8 * at)
