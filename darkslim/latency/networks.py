"""Times whole networks beside each other, and says how far the times can be trusted."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..network.darknet import Darknet

WARM = 2  # turns that do not count: kernels are compiled, caches filled
LEAST, MOST = 9, 400  # turns that count
SECONDS = 1.5  # for all turns together, unless the least of them take longer
CLOSE = 0.02  # spread at which no more turns are needed
WIDE = 0.15  # spread beyond which a time says nothing


@dataclass(frozen=True)
class Timing:
    """Seconds of one forward pass.

    Attributes:
        seconds: the median over the turns.
        spread: half of the width of the median's 95% interval, as a share of the median.
        turns: how many were measured.
    """

    seconds: float
    spread: float
    turns: int

    @property
    def measurable(self) -> bool:
        """Whether the machine was quiet enough for the time to mean something."""
        return self.spread <= WIDE


def time_networks(
    models: Sequence[Darknet], size: tuple[int, int] | None = None, clock: Callable[[], float] | None = None
) -> list[Timing]:
    """Times networks at batch 1, in eval mode, on the device that each lies on.

    They take turns in an order that is drawn anew each time, so that a drift of the machine, other work on it
    and the state of its caches hit all alike. Fast networks get more turns: medians of a few turns of some
    milliseconds were seen to differ by 5.5 times between identical networks on a busy machine.

    Args:
        size: (height, width) of the input; the cfg's if None.
        clock: seconds, in place of time.perf_counter.
    """
    clock = clock or time.perf_counter
    draw, modes = random.Random(0), [m.training for m in models]
    inputs = [_input(model.eval(), size) for model in models]
    times: list[list[float]] = [[] for _ in models]
    started = clock()
    try:
        with torch.inference_mode():
            for turn in range(WARM + MOST):
                for i in draw.sample(range(len(models)), len(models)):
                    took = _once(models[i], inputs[i], clock)
                    if turn >= WARM:
                        times[i].append(took)
                if turn + 1 == WARM:
                    started = clock()
                if turn + 1 >= WARM + LEAST and (
                    clock() - started > SECONDS or max(spread(t) for t in times) < CLOSE
                ):
                    break
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    return [Timing(statistics.median(t), spread(t), len(t)) for t in times]


def spread(times: Sequence[float]) -> float:
    """Half the width of the 95% interval of a median, as a share of it, by order statistics: the interval
    that they give holds whatever the times are distributed like (Hahn and Meeker 1991, 5.2).
    """
    ordered, n = sorted(times), len(times)
    reach = 0.98 * math.sqrt(n)
    low, high = ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach) - 1)]
    middle = statistics.median(ordered)
    return (high - low) / 2 / middle if middle > 0 else math.inf


def _input(model: Darknet, size: tuple[int, int] | None) -> torch.Tensor:
    c, h, w = model.graph.input_shape
    parameter = next(model.parameters())
    return torch.rand(1, c, *(size or (h, w)), device=parameter.device, dtype=parameter.dtype)


def _once(model: Darknet, x: torch.Tensor, clock: Callable[[], float]) -> float:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    start = clock()
    model(x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return clock() - start
