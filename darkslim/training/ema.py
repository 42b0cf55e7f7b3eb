"""A running average of the weights, for evaluation.

Its decay grows with the number of updates, (1 + n) / (10 + n) up to the decay that was asked for: the average
then looks back over about a ninth of the run so far, which suits runs of a thousand steps as well as long
ones.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """The averaged copy of a model; `.model` is in eval mode.

    Never use it on weights that a sparsity penalty moves: it lags behind the gammas, and its mAP collapses.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        shared = {
            id(part): part for name, part in vars(model).items() if not _own(name)
        }  # cfg, graph, heads ... are not copied
        self.model = copy.deepcopy(model, shared).eval().requires_grad_(False)
        self._source: tuple[nn.Module, list[Tensor], list[Tensor]] | None = None

    def momentary_decay(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`; counters are copied."""
        self.updates += 1
        if self._source is None or self._source[0] is not model:
            mine, theirs = self.model.state_dict(keep_vars=True), model.state_dict(keep_vars=True)
            self._source = (model, [mine[k] for k in theirs], list(theirs.values()))
        _, mine, theirs = self._source
        moving = [i for i, t in enumerate(theirs) if t.is_floating_point()]
        torch._foreach_lerp_(
            [mine[i].data for i in moving], [theirs[i].data for i in moving], 1 - self.momentary_decay()
        )
        for a, b in zip(mine, theirs, strict=True):
            if not b.is_floating_point():
                a.data.copy_(b.data)

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])


def _own(name: str) -> bool:
    """Whether a copy of a module needs an attribute of its own: what torch keeps in it, hooks among it."""
    return name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set") or "hook" in name
