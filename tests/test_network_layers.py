"""Layers alone, where how they are computed depends on what is asked of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from commands import TINY

from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet


def pool(more: str = "") -> torch.nn.Module:
    text = TINY.replace("[convolutional]", f"[maxpool]\nsize=2\nstride=2\n{more}\n[convolutional]", 1)
    return Darknet(parse_cfg(text)).module_list[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("height, width", [(32, 32), (2, 2), (6, 10), (7, 8), (8, 7), (1, 1)])
def test_a_pool_that_halves_is_the_same_with_gradients_and_without(height, width, dtype, layout):
    x = torch.randn(3, 5, height, width).to(dtype).to(memory_format=layout)
    x[0, 0, 0, 0], x[0, 1] = float("nan"), float("-inf")
    x[1] = x[1].round()  # ties
    layer = pool()
    found = layer(x)
    known = layer(x.clone().requires_grad_()).detach()
    assert found.dtype == dtype and torch.equal(torch.nan_to_num(found), torch.nan_to_num(known))
    assert torch.equal(found.isnan(), known.isnan()) and bool(found[0, 0, 0, 0].isnan())
    assert found.shape == (3, 5, -(-height // 2), -(-width // 2))
    if height % 2 == width % 2 == 0:
        assert torch.equal(found[1:], F.max_pool2d(x[1:], 2))
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("height, width", [(7, 8), (8, 7), (7, 7), (8, 8)])
def test_without_padding_the_last_row_or_column_of_an_odd_map_is_left_out(height, width):
    x = torch.randn(2, 3, height, width)
    found = pool("padding=0\n")(x)
    assert torch.equal(found, F.max_pool2d(x, 2)) and found.shape == (2, 3, height // 2, width // 2)


def test_gradients_go_to_the_first_of_the_largest():
    x = torch.tensor([[1.0, 2.0], [2.0, 2.0]]).view(1, 1, 2, 2).requires_grad_()
    pool()(x).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0, 0]


def test_what_is_written_down_is_a_pool():
    traced = torch.jit.trace(pool(), torch.rand(1, 3, 8, 8))
    kinds = [node.kind() for node in traced.inlined_graph.nodes()]
    assert "aten::max_pool2d" in kinds and "aten::maximum" not in kinds
