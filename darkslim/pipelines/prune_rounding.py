"""The multiple that widths are best rounded to, found by timing: processors compute channels in blocks,
and how wide those are depends on the engine and the machine.
"""

from __future__ import annotations

from ..pruning import surgery
from ..pruning.blocks import Removal
from ..pruning.budget import NEAR, Target
from ..pruning.plan import plan
from .cut_settings import AUTO, PERCENT
from .prune_job import Job, sizes

MULTIPLES = (1, 4, 8, 16, 32, 64)  # 64: products of 8 bits in tiles
CLOSE = 0.02  # times that differ by less are equal, and the smaller multiple chooses more freely
AGAIN = 0.15  # those within it of the best are timed once more


def rounded(job: Job, removal: Removal | None) -> Job:
    """The job with a multiple in place of `auto`: a cut of about the size that is asked for is made with each
    of several, and the one whose time a MAC is least is taken. A multiple that leaves the layers so much that
    the target is missed is none of them.
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
    plans = [plan(model, **wanted, **job.changed(round_to=multiple).request) for multiple in MULTIPLES]
    met = [one.reached is None or one.reached <= one.wanted * (1 + NEAR) for one in plans]
    tried = [multiple for multiple, fits in zip(MULTIPLES, met, strict=True) if fits or not any(met)]
    made = [surgery.apply(model, one, s.fold) for one in plans if one.round_to in tried]
    macs = [sizes(network)["macs"] for network in made]
    rates = [1e12 * t / m for t, m in zip(job.timed(made), macs, strict=True)]
    near = [i for i, rate in enumerate(rates) if rate <= min(rates) * (1 + AGAIN)]
    if len(near) > 1:  # one more look, for a machine is rarely quiet
        for i, t in zip(near, job.timed([made[i] for i in near]), strict=True):
            rates[i] = (rates[i] + 1e12 * t / macs[i]) / 2
    best = next(i for i, rate in enumerate(rates) if rate <= min(rates) * (1 + CLOSE))
    said = ", ".join(f"{multiple}: {rate:.1f}" for multiple, rate in zip(tried, rates, strict=True))
    left = [str(multiple) for multiple in MULTIPLES if multiple not in tried]
    said += f"; {', '.join(left)} would miss the target" if left else ""
    job.observer.say(f"--round_to {tried[best]}, from the ms a GMAC in {s.engine} of multiples ({said})")
    return job.changed(round_to=tried[best])
