"""What presses a network towards a smaller one while it trains: the penalty of a run, and its reach."""

from __future__ import annotations

import warnings

from ..base.observer import Observer
from ..network.darknet import Darknet
from ..network.gates import Gates
from ..training import loop, penalties, prunable
from .settings import TrainSettings


def penalty(
    settings: TrainSettings, model: Darknet, rates: list[float], momentum: float
) -> penalties.Penalty:
    """The penalty that the settings name; with `--s auto` of a strength that suits this run. Where it presses
    gates, the network gets them.
    """
    kind = penalties.PENALTIES[settings.sr_penalty]
    if kind is penalties.Gate:
        model.gates = Gates(model.graph, settings.strategy).to(next(model.parameters()).device)
    pressed = prunable.pressed(model, settings.strategy)
    s = settings.s
    if s == "auto":
        s = penalties.suggested_s(kind(pressed, 1.0).dose(rates, momentum))
    return kind(pressed, s, settings.sr_schedule or kind.schedule)


def report_dose(run: loop.Run, observer: Observer) -> float | None:
    """Says how far the penalty can move a gamma (or a gate) in this run; warns when that cannot prune. None
    without a penalty.
    """
    momentum, rates = run.optimizer.param_groups[0]["momentum"], run.schedule.all()
    for penalty in (c for c in run.constraints if isinstance(c, penalties.Penalty)):
        dose = penalty.dose(rates, momentum)
        if dose is None:
            continue
        better = penalties.suggested_s(dose / penalty.s) if penalty.s else float("nan")
        what = "gates" if isinstance(penalty, penalties.Gate) else "gammas"
        held = f" / (1 - momentum {momentum:g})" if penalty.momentum else ""
        observer.say(
            f"dose: {dose:.3g} = s {penalty.s:g} x sum of learning rates {sum(rates):.4g}{held}, on "
            f"{penalty.channels} prunable channels; {what} start near 1"
        )
        if not penalty.channels:
            warnings.warn("no channel of this network can be pruned, so -sr does nothing", stacklevel=2)
        elif dose < 1 and run.world.first:
            warnings.warn(
                f"dose {dose:.2g} cannot press {what} to zero; use --s {better:g} (dose "
                f"{penalties.ENOUGH:g}), --s auto, or train longer",
                stacklevel=2,
            )
        elif dose > penalties.TOO_MUCH and run.world.first:
            warnings.warn(
                f"dose {dose:.3g} presses all {what} to zero, those that matter as well; use --s "
                f"{better:g} (dose {penalties.ENOUGH:g})",
                stacklevel=2,
            )
        return dose
    return None
