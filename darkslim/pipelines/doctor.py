"""The sparsity doctor: after each epoch of sparsity training, how far the network can be cut now, and whether
the penalty does what it should.

- `near_zero`: the share of gammas (or gates) near zero: the cut that this distribution predicts to be safe.
- `safe`: the largest cut, in tenths, that was tried on a few training pictures and hardly changed their loss.
  What is tried is the network with those channels at 0, which is what an exact cut leaves. 0: none of those
  that were tried.
- Warnings, each once a run: what is pressed hardly moves; mAP falls faster than sparsity grows.

It changes nothing: weights are put back as they were, no random number is drawn. What it has to remember is
in the history, so that a resumed run goes on with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..base.errors import RequestError
from ..pruning.importance import NEAR_ZERO, sparsity
from ..pruning.plan import mask, plan
from ..training import loop, penalties, prunable
from ..training.objective import plain_loss

STEP, TRIES = 0.1, 3  # of the cuts that are tried; how many an epoch
HARDLY = 0.02  # share of the loss by which a safe cut may raise it
EARLY = 0.2  # share of a run's dose from which on the movement of what is pressed is judged
SLOW = 0.5  # of the fall that would take it to zero in the rest of the run
FALL = 0.03  # of mAP50, from which on it is compared with what sparsity has gained
PICTURES = 16  # that cuts are tried on


@dataclass
class Doctor:
    """Looks at a run after each epoch.

    Attributes:
        run: the training. strategy: what may be cut. batches: (images, targets) of plain training pictures.
        rates: the learning rates of the whole run. epochs: of the whole run.
        told: warnings that were given, by kind.
    """

    run: loop.Run
    strategy: str
    batches: list
    rates: list[float]
    epochs: int
    told: set[str] = field(default_factory=set)

    @property
    def penalty(self) -> penalties.Penalty:
        return self.run.constraints[0]

    def look(self, row: dict) -> list[str]:
        """Adds `near_zero` and `safe` to the row of an epoch.

        Returns:
            What is to be warned about.
        """
        values = prunable.values(self.penalty.gammas).abs().double().numpy()
        row["gamma_quintiles"] = prunable.quintiles(self.penalty.gammas)
        if not len(values):
            return []
        row["near_zero"] = sparsity(values).near_zero
        row["safe"] = self.safe(row)
        found = {"slow": self.slow(row), "falling": self.falling(row)}
        new = [text for kind, text in found.items() if text and kind not in self.told]
        self.told |= {kind for kind, text in found.items() if text}
        return new

    def safe(self, row: dict) -> float | None:
        """The largest of TRIES cuts, round the one of the epoch before, that hardly raises the loss; None
        without pictures.
        """
        if not self.batches:
            return None
        before = [r["safe"] for r in self.run.progress.history[:-1] if r.get("safe") is not None]
        middle = max(round(row["near_zero"] / STEP), round(before[-1] / STEP) if before else 0)
        most = round(1 / STEP) - 1
        whole = self.loss()
        for tenths in range(min(middle + 1, most), min(middle + 1, most) - TRIES, -1):
            if tenths < 1:
                return 0.0
            with _Cut(self.run.model, self.penalty, tenths * STEP, self.strategy):
                if self.loss() <= (1 + HARDLY) * whole:
                    return round(tenths * STEP, 10)
        return 0.0

    def loss(self) -> float:
        """The detection loss on the pictures, with the statistics of the norms as they are."""
        run = self.run
        return plain_loss(run.model, self.batches, run.world.device, run.precision.autocast)

    def slow(self, row: dict) -> str | None:
        """What is pressed moves too little to arrive at zero. Judged by the border of the smallest fifth."""
        begun = next((r for r in self.run.progress.history if r.get("gamma_quintiles")), row)
        given = np.cumsum(self.penalty.pressing(self.rates))
        if begun is row or not self.penalty.s or not given[-1]:
            return None
        steps = len(given) // self.epochs
        first, now = (given[min(r["epoch"] * steps, len(given)) - 1] for r in (begun, row))
        was, stands = begun["gamma_quintiles"][1], row["gamma_quintiles"][1]
        if now - first < EARLY * given[-1] or stands <= NEAR_ZERO * row["gamma_quintiles"][-1]:
            return None  # too early to judge, or a fifth has arrived
        fall = (was - stands) / (now - first) * (given[-1] - now)  # at this pace, in the rest of the run
        if fall >= SLOW * stands:
            return None
        what = "gates" if isinstance(self.penalty, penalties.Gate) else "gammas"
        better = self.penalty.s * min(10.0, stands / max(fall, 0.1 * stands))
        return (
            f"the {what} hardly move: the smallest fifth lay below {was:.3g} after epoch {begun['epoch']}, "
            f"lies below {stands:.3g} now, and ends at {max(0.0, stands - fall):.3g} at this pace. Use a "
            f"larger --s ({better:.2g}), or train longer"
        )

    def falling(self, row: dict) -> str | None:
        """mAP falls faster than sparsity grows: the penalty presses what matters as well."""
        measured = [r for r in self.run.progress.history if r.get("map50") is not None and "near_zero" in r]
        if row.get("map50") is None or len(measured) < 2:
            return None
        best = max(measured, key=lambda r: r["map50"])
        lost, gained = best["map50"] - row["map50"], row["near_zero"] - best["near_zero"]
        if lost < FALL or lost <= gained:
            return None
        return (
            f"mAP50 fell by {lost:.3f} since epoch {best['epoch']}, while {gained:+.1%} more lie near zero: "
            f"the penalty presses what matters as well. Use --sr_schedule global-decay, or a smaller --s "
            f"({self.penalty.s / 2:.2g})"
        )


class _Cut:
    """A context in which the weakest part of what is pressed is 0, and which puts all of it back."""

    def __init__(self, model, penalty: penalties.Penalty, share: float, strategy: str):
        self.model, self.penalty, self.share, self.strategy = model, penalty, share, strategy

    def __enter__(self) -> None:
        if isinstance(self.penalty, penalties.Gate):
            self.tensors = [g.parameter for g in self.penalty.gammas]
            self._remember()
            values = self.penalty.pressed.values()
            weakest = values.abs().argsort(stable=True)[: int(self.share * len(values))]
            values[weakest] = 0
            self.penalty.pressed.set(values)
            return
        try:
            keep = plan(self.model, self.share, self.strategy, layer_keep=0.0, fold="interior").keep
        except RequestError:
            keep = {}
        convolutions, norms = self.model.convolutions(), self.model.batch_norms()
        layers = [layer for layer, kept in keep.items() if not kept.all()]
        self.tensors = [norms[i].weight if i in norms else convolutions[i].weight for i in layers]
        self._remember()
        mask(self.model, keep)

    def _remember(self) -> None:
        self.before = [t.detach().clone() for t in self.tensors]

    def __exit__(self, *_) -> None:
        with torch.no_grad():
            for tensor, before in zip(self.tensors, self.before, strict=True):
                tensor.copy_(before)
