"""The valley of a distribution: where training has parted what matters from what does not, and so how much
to cut without naming a ratio (Zhuang 2020, polarization, cuts at the first valley of the histogram).
"""

from __future__ import annotations

import numpy as np

BINS, EACH = 60, 40  # bins at most, and so many values for each at least: fewer make valleys by chance
WIDE = 99  # percentile up to which values are looked at
DEEP = 0.5  # of the lower of the heaps beside it, which a valley may hold at most
HEAP = 0.02  # share of all values that each side of a valley holds at least


def valley(values: np.ndarray) -> float | None:
    """The value at the bottom of the first deepest valley between two heaps; None where there is no valley.

    A value of 0 is what gates and proximal steps leave where they have closed a channel, so zeros are a heap
    of their own, however near the others come.

    Args:
        values: (n,) scores, 0 and above.
    """
    zeros = (values == 0).mean() if len(values) else 0.0
    if HEAP <= zeros < 1:
        return float(values[values > 0].min() / 2)
    high = np.percentile(values, WIDE) if len(values) else 0.0
    if high <= 0:
        return None
    bins = min(BINS, max(8, len(values) // EACH))
    counts, edges = np.histogram(values, bins, (0.0, float(high)))
    smooth = np.convolve(counts, np.ones(3) / 3, "same")
    below = np.cumsum(counts) / len(values)
    best, where = 0.0, None
    for i in range(1, bins - 1):
        heap = min(smooth[:i].max(), smooth[i + 1 :].max())
        if heap < HEAP * len(values) / 3 or below[i - 1] < HEAP or 1 - below[i] < HEAP:
            continue
        depth = 1 - smooth[i] / heap
        if depth > best:
            best, where = depth, i
    return float((edges[where] + edges[where + 1]) / 2) if best >= DEEP else None
