"""The settings of slim: those that are given, before those of a recipe, before the defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..base.errors import RequestError
from ..base.options import choice, count, default_of, fraction, option, options, or_word, text
from .cut_settings import REPAIR, Cutting, Targets
from .recipes import find, read_recipe
from .settings import Common, Optimization

DEFAULT = "slimming-repaired"  # the recipe that kept most at small sizes, see docs/RESULTS.md


@dataclass(frozen=True, init=False)
class SlimSettings(Targets, Cutting, Optimization, Common):
    """Settings of `slim`: those that are given, before those of the recipe, before the defaults.

    Raises:
        RequestError, FileError: an unknown recipe, one with a wrong key or value, or settings that cannot be.
    """

    weights: str | None = option(
        None, text, "a trained network to begin with; none: it is trained first", metavar="FILE", reads=True
    )
    teacher: str = option(
        "none",
        choice("dense", "none"),
        "what finetuning is pulled to beside the truths: the network before all cuts, or nothing; "
        "--t_weights names another",
    )
    recipe: str = option(DEFAULT, text, "how: a name in config/recipes, or a file", metavar="NAME")
    max_map_drop: float | None = option(
        None,
        fraction(),
        "stop before a step that loses more mAP than this after finetuning, on the pictures of --choose_on",
        "--max-map-drop",
        metavar="D",
    )
    rate: float | str = option(
        0.5,
        or_word(fraction(0, 0.99), "auto"),
        "share of the prunable channels to cut over all steps, where no target says more; auto: in each step "
        "what lies before the valley of the scores",
    )
    iterative_steps: int = option(
        1,
        count(1, 1000),
        "steps; step i of n leaves (1 - rate)^(i/n), or that power of the target",
        "--iterative-steps",
        metavar="N",
    )
    epochs: int | None = option(
        None, count(1), "of the dense training, where there is any; none: as train.py takes"
    )
    sparse_epochs: int = option(100, count(), "of sparsity training, shared out over the steps; 0: none")
    finetune_epochs: int = option(100, count(1), "of finetuning, shared out over the steps")
    recalibrate: int = option(
        0,
        count(),
        "batches of `train` to re-estimate the batch norms on after each cut",
        metavar="N",
        group=REPAIR,
    )
    reconstruct: int = option(
        0,
        count(),
        "batches of `train` on which what stays is solved again by least squares after each cut; 0: no",
        metavar="N",
        group=REPAIR,
    )
    eval_batch_size: int = option(16, count(1), "images at once when measuring mAP and recalibrating")
    work: str = option(
        "runs/slim", text, "where everything goes; the same line goes on where it stopped", metavar="DIR"
    )

    def __init__(self, recipe: str = DEFAULT, **given):
        known = [f.name for f in fields(self)]
        if unknown := set(given) - set(known):
            raise TypeError(f"no settings of slim: {', '.join(sorted(unknown))}")
        its = read_recipe(recipe, SlimSettings)
        groups = {name: o.group for name, o in options(SlimSettings).items() if o.group}
        taken = {groups[name] for name in groups if given.get(name) is not None}  # in place of the recipe's
        its = {name: value for name, value in its.items() if groups.get(name) not in taken}
        values = {**its, **given, "recipe": recipe}
        for name in known:
            object.__setattr__(self, name, values.get(name, default_of(SlimSettings, name)))
        self.__post_init__()

    def reads(self) -> dict:
        return {**super().reads(), "--recipe": find(self.recipe)}

    def __post_init__(self):
        super().__post_init__()
        if self.finetune_epochs < self.iterative_steps:
            raise RequestError(
                "--finetune_epochs",
                f"{self.finetune_epochs} epochs for {self.iterative_steps} steps",
                "at least one a step",
                "finetune longer, or take fewer --iterative-steps",
            )
        if 0 < self.sparse_epochs < self.iterative_steps:
            raise RequestError(
                "--sparse_epochs",
                f"{self.sparse_epochs} epochs for {self.iterative_steps} steps",
                "none, or at least one a step",
                "train longer, or take fewer --iterative-steps",
            )
