"""Where a training run stands: what the loop, its constraints and a resumed run share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch, batch, step: epochs done, batches done of the next one, optimizer steps done in all, those that
            float16 scaling skipped among them.
        steps: optimizer steps of the whole run.
        best: the best mAP50 so far.
        sums: name of a part of the loss -> its sum over the batches of this epoch.
        history: one row an epoch. notes: plain values that the caller wants saved with the state.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    steps: int = 0
    best: float = -1.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        return self.step / self.steps if self.steps else 0.0

    def next_epoch(self, row: dict) -> None:
        """Ends an epoch with its row of the history."""
        self.history.append(row)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}

    def state(self) -> dict:
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "best": self.best,
            "sums": dict(self.sums),
            "history": list(self.history),
            "notes": dict(self.notes),
        }

    def load(self, state: dict) -> None:
        """The inverse of `state`; `steps` stays what this run was planned for."""
        self.epoch, self.batch, self.step = int(state["epoch"]), int(state["batch"]), int(state["step"])
        self.best, self.sums = float(state["best"]), {str(k): float(v) for k, v in state["sums"].items()}
        self.history, self.notes = list(state["history"]), dict(state["notes"])
