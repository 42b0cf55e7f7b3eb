"""The multiple that widths are best rounded to, found by timing: processors compute channels in blocks,
and how wide those are depends on the engine and the machine.
"""

from __future__ import annotations

from ..pruning import surgery
from ..pruning.blocks import Removal
from ..pruning.budget import Target
from ..pruning.plan import plan
from .cut_settings import AUTO, PERCENT
from .prune_job import Job, sizes

MULTIPLES = (1, 4, 8, 16, 32, 64)  # 64: products of 8 bits in tiles
CLOSE = 0.02  # times that differ by less are equal, and the smaller multiple chooses more freely
AGAIN = 0.15  # those within it of the best are timed once more


def rounded(job: Job, removal: Removal | None) -> Job:
    """The job with a multiple in place of `auto`: a cut of about the size that is asked for is made with each
    of several, and the one whose time a MAC is least is taken.
    """
    s = job.settings
    if s.round_to != AUTO:
        return job
    model = removal.model if removal else job.model
    wanted: dict = {"percent": s.percent if isinstance(s.percent, float) else PERCENT}
    if s.target is not None:
        kind, value, absolute = s.target
        if kind == "latency" and absolute:
            value, absolute = min(1.0, value / job.timed([model])[0]), False
        kind = "macs" if kind == "latency" else kind
        amount = value if absolute else value * sizes(job.model)[kind]
        wanted = {"target": Target(kind, amount, True)}
    made = []
    for multiple in MULTIPLES:
        trial = job.changed(round_to=multiple)
        made.append(surgery.apply(model, plan(model, **wanted, **trial.request), s.fold))
    macs = [sizes(network)["macs"] for network in made]
    rates = [1e12 * t / m for t, m in zip(job.timed(made), macs, strict=True)]
    near = [i for i, rate in enumerate(rates) if rate <= min(rates) * (1 + AGAIN)]
    if len(near) > 1:  # one more look, for a machine is rarely quiet
        for i, t in zip(near, job.timed([made[i] for i in near]), strict=True):
            rates[i] = (rates[i] + 1e12 * t / macs[i]) / 2
    best = next(i for i, rate in enumerate(rates) if rate <= min(rates) * (1 + CLOSE))
    said = ", ".join(f"{multiple}: {rate:.1f}" for multiple, rate in zip(MULTIPLES, rates, strict=True))
    job.observer.say(f"--round_to {MULTIPLES[best]}, from the ms a GMAC in {s.engine} of multiples ({said})")
    return job.changed(round_to=MULTIPLES[best])
