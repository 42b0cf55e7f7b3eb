"""What a packed network comes to, stage by stage and layer by layer: what each step of deep compression
saved, and how near the file is to the least that any coder of single symbols needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..network.entropy import entropy_bits
from ..network.packed import GAPS, RAW, Shared, Stored, distances


@dataclass(frozen=True)
class Layer:
    """One layer's kernels.

    Attributes:
        layer: its number. count, kept: weights, and those that are not 0. values: how many they share.
        sparse: bytes where only weights that are not 0 are kept, float32, with distances of a fixed length.
        shared: the same with a code of a fixed length in place of each weight, and the values.
        coded: bytes in the file. entropy: the least for its symbols and values.
    """

    layer: int
    count: int
    kept: int
    values: int
    sparse: float
    shared: float
    coded: int
    entropy: float


def account(stored: Stored, shared: Shared | None, floats: np.ndarray) -> Layer:
    """The bytes of one layer's kernels.

    Args:
        floats: the kernels. shared: as they are packed, None where they are kept as float32.
    """
    flat = floats.reshape(-1)
    codes = (flat != 0).astype(np.uint8) if shared is None else shared.codes.reshape(-1)
    kept = int((flat != 0).sum())
    bits, entries = fixed(codes)
    count = 0 if shared is None else len(shared.values)
    each = max(1, int(np.ceil(np.log2(max(2, count)))))
    sparse = min(entries * (32 + bits), 32 * flat.size) / 8
    if shared is None or stored.kind == RAW:
        return Layer(stored.layer, flat.size, kept, 0, sparse, 4.0 * flat.size, stored.size, 4.0 * flat.size)
    small = min(entries * (each + bits), each * flat.size) / 8 + 4 * count
    return Layer(
        stored.layer, flat.size, kept, count, sparse, small, stored.size, least(codes, stored) + 4 * count
    )


def fixed(codes: np.ndarray) -> tuple[int, int]:
    """(bits of a distance, entries with fillers) with which distances of a fixed length take fewest bits."""
    best = (32, int((codes != 0).sum()))
    if not best[1]:
        return 1, 0
    for bits in GAPS:
        entries = len(distances(codes, bits)[0])
        if entries * (bits + 8) < best[1] * (best[0] + 8):
            best = bits, entries
    return best


def least(codes: np.ndarray, stored: Stored) -> float:
    """The entropy, in bytes, of the symbols that were coded."""
    if not stored.gap:
        return entropy_bits(codes, stored.values) / 8
    gaps, kept = distances(codes, stored.gap)
    return (entropy_bits(kept, stored.values) + entropy_bits(gaps, 1 << stored.gap)) / 8


def stages(layers: Sequence[Layer], others: int, whole: int, packed: int) -> list[dict]:
    """name, bytes of each step.

    Args:
        others: bytes of biases, norms and statistics, which no step changes.
        whole: of the .weights file. packed: of the packed file.
    """
    return [
        {"name": "float32", "bytes": whole},
        {"name": "zeros left out", "bytes": round(sum(row.sparse for row in layers)) + others},
        {"name": "values shared", "bytes": round(sum(row.shared for row in layers)) + others},
        {"name": "coded", "bytes": packed},
    ]
