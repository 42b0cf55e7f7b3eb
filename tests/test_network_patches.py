"""Gram matrices: what is summed up in parts is what all positions together give."""

from __future__ import annotations

import pytest
import torch

from darkslim.network import patches
from darkslim.network.patches import Gram


@pytest.mark.parametrize("groups, width, block", [(1, 50, 512), (1, 50, 16), (2, 33, 16), (1, 48, 16)])
def test_parts_come_to_the_whole(monkeypatch, groups, width, block):
    """In any number of parts, in blocks or not, with more taken in after a first look."""
    monkeypatch.setattr(patches, "BLOCK", block)
    g = torch.Generator().manual_seed(0)
    f = torch.rand(groups, 90, width, generator=g, dtype=torch.float64)
    y = torch.rand(groups, 90, 3, generator=g, dtype=torch.float64)
    first, second = Gram(groups, width, 3, "cpu"), Gram(groups, width, 3, "cpu")
    first.add(f[:, :20], y[:, :20])
    first.centred()
    first.add(f[:, 20:50], y[:, 20:50])
    second.add(f[:, 50:], y[:, 50:])
    first.merge(second)
    ff, fy, yy = first.centred()
    a, b = f - f.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    assert torch.allclose(ff, a.mT @ a, rtol=1e-10, atol=1e-10)
    assert torch.allclose(ff, ff.mT) and first.count == 90
    assert torch.allclose(fy, a.mT @ b) and torch.allclose(yy, (b**2).sum(1))
    weights = torch.rand(groups, width, 3, generator=g, dtype=torch.float64)
    offsets = first.offsets(weights)
    wanted = ((f @ weights + offsets[:, None] - y) ** 2).sum(1)
    assert torch.allclose(first.errors(weights, offsets), wanted)
