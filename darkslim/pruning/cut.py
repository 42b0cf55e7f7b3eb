"""A whole cut in memory: residual blocks, channels, the proofs, and batch norms folded in; the inputs stay
untouched.

removal  = without_blocks(model, count)                    # or None
decision = plan(removal.model if removal else model, ...)
made     = make(model, decision, removal, fold="exact")    # proven, ready for verify.save_proven
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..network.channels import Channels
from ..network.darknet import Darknet
from . import blocks, surgery, verify
from .fuse import fuse, prove_fused
from .plan import PrunePlan
from .reconstruct import Fit


@dataclass(frozen=True)
class Cut:
    """What has been made of a network, and how it was proven.

    Attributes:
        model: as it was given.
        removal: the residual blocks that went first, None without any.
        decision: the plan, for the network without the blocks.
        fold: what became of the constants of cut channels.
        compact: the result, in eval mode and on the CPU.
        proof: compact against masked, before any repair and fusing.
        differences: way of folding -> what it would differ by, relative.
        fused: whether the batch norms of `compact` are folded in.
        repair: `recalibrate` or `reconstruct`, what was done after the proof; None: nothing.
        folded_map50: mAP before that.
        pictures: how many pictures it took.
        fits: how the convolutions came out of a reconstruction.
    """

    model: Darknet
    removal: blocks.Removal | None
    decision: PrunePlan
    fold: str
    compact: Darknet
    proof: verify.Proof
    differences: dict[str, float]
    fused: bool = False
    repair: str | None = None
    folded_map50: float | None = None
    pictures: int = 0
    fits: tuple[Fit, ...] = ()

    @property
    def blocks(self) -> tuple[blocks.Block, ...]:
        """The residual blocks that were removed."""
        return self.removal.blocks if self.removal else ()

    @property
    def numbers(self) -> Mapping[int, int] | None:
        """Layer of `model` -> layer of `compact`, of those that stay; None where all stay."""
        return self.removal.numbers if self.removal else None

    def rows(self) -> list[tuple[int, int, int]]:
        """(layer of `model`, channels before, after) of every convolution; 0 where it was removed."""
        after = {layer: self.compact.graph.nodes[new].shape[0] for layer, new in self._convolutions()}
        return [
            (layer, self.model.graph.nodes[layer].shape[0], after.get(layer, 0))
            for layer in self.model.convolutions()
        ]

    def carriers(self) -> dict[int, int]:
        """Layer of `model` -> how many of its channels stay as constants."""
        keep = self.decision.keep
        return {
            layer: self.compact.graph.nodes[new].shape[0] - int(keep[new].sum())
            for layer, new in self._convolutions()
        }

    def protected(self) -> list[tuple[int, str]]:
        """(layer of `model`, reason) of what the strategy may not cut of what stays; what lost its shortcuts
        with a block it may.
        """
        reasons = dict(
            Channels(self.model.graph).protected_layers(self.decision.strategy)
        )  # these name the layers of `model`
        layers = {new: old for old, new in self._convolutions()}
        return [(layers[new], reasons.get(layers[new], why)) for new, why in self.decision.protected]

    def _convolutions(self) -> list[tuple[int, int]]:
        """(layer of `model`, layer of `compact`) of every convolution that stays."""
        numbers = self.numbers
        if numbers is None:
            return [(layer, layer) for layer in self.decision.keep]
        return [(old, new) for old, new in numbers.items() if new in self.decision.keep]


def without_blocks(model, count: int, seed: int = 0) -> blocks.Removal | None:
    """The network without its `count` weakest residual blocks, proven; None for 0.

    Raises:
        RequestError: there are fewer blocks.
        ProofError: the smaller network is not the one in which they add nothing.
    """
    if not count:
        return None
    removal = blocks.remove(model, count)
    blocks.prove_removal(model, removal, seed=seed)
    return removal


def make(
    model, decision: PrunePlan, removal: blocks.Removal | None = None, fold: str = "exact", seed: int = 0
) -> Cut:
    """Cuts channels as a plan says and proves it.

    Args:
        decision: the plan for `removal.model`, or for `model` without a removal.

    Raises:
        RequestError: the plan is for another network.
        ProofError: compact and masked network differ.
    """
    start = removal.model if removal else model
    compact = surgery.apply(start, decision, fold)
    proof = verify.prove(start, decision, compact, fold, seed=seed)
    return Cut(
        model, removal, decision, fold, compact, proof, verify.fold_differences(start, decision, seed=seed)
    )


def fused(made: Cut, seed: int = 0) -> Cut:
    """The same with batch norms folded into the convolutions, proven.

    Raises:
        WeightsError: float32 cannot hold a folded kernel.
        ProofError: the fused network differs.
    """
    compact = fuse(made.compact)
    prove_fused(made.compact, compact, seed=seed)
    return replace(made, compact=compact, fused=True)
