"""Training for 8 bits: what the forward pass rounds, what gradients see, and that rounding costs less after
it.
"""

from __future__ import annotations

import pytest
import torch
from commands import TINY, tiny_model, write
from torch import nn
from torch.nn import functional

from darkslim.network.darknet import Darknet
from darkslim.network.rounding import LEVELS, STEPS, head_layers, rounded, spread, stepped
from darkslim.pruning.fuse import fuse
from darkslim.training.quantization_aware import QuantizationAware, RoundedConv2d


@pytest.fixture
def model(tmp_path) -> Darknet:
    write(tmp_path / "net.cfg", TINY)
    torch.manual_seed(0)
    return Darknet(str(tmp_path / "net.cfg"))


def test_kernels_have_so_many_steps_and_keep_their_largest_value():
    kernel = torch.randn(5, 3, 3, 3)
    made = rounded(kernel)
    most = kernel.flatten(1).abs().amax(1)
    assert torch.allclose(made.flatten(1).abs().amax(1), most)
    steps = made * LEVELS / most.view(-1, 1, 1, 1)
    assert torch.allclose(steps, steps.round(), atol=1e-4) and len(steps.round().unique()) <= 2 * LEVELS + 1
    assert ((made - kernel).abs().flatten(1).amax(1) <= 0.51 * most / LEVELS).all()
    assert torch.equal(rounded(torch.zeros(2, 1, 1, 1)), torch.zeros(2, 1, 1, 1))


def test_maps_have_so_many_steps_with_zero_among_them():
    x = torch.linspace(-1, 2, 1001)
    made = stepped(x, *spread(x))
    assert len(made.unique()) == STEPS + 1 and (made == 0).any()
    assert float((made - x).abs().max()) <= 3 / STEPS
    clipped = stepped(torch.tensor([-9.0, 0.0, 9.0]), torch.tensor(0.0), torch.tensor(2.0))
    assert clipped.tolist() == [0.0, 0.0, 2.0]
    low, high = spread(torch.tensor([3.0, 5.0]))
    assert (float(low), float(high)) == (0.0, 5.0)


def test_a_kernel_rounds_alike_before_and_after_its_batch_norm_is_folded_in():
    model = tiny_model()
    folded, norms = fuse(model).convolutions(), model.batch_norms()
    assert norms
    for i, bn in norms.items():
        kernel, factors = model.convolutions()[i].weight, bn.weight / (bn.running_var + bn.eps).sqrt()
        there = rounded(folded[i].weight)
        assert torch.allclose(rounded(kernel) * factors.view(-1, 1, 1, 1), there, atol=1e-5)


def test_only_training_rounds_and_heads_do_not(model):
    x = torch.rand(2, 3, 32, 32)
    plain = [raw.detach() for raw in model.eval().raw_heads(x)]
    names = list(model.state_dict())
    rounding, heads = QuantizationAware(model), head_layers(model)
    assert heads and all(type(model.convolutions()[i]) is nn.Conv2d for i in heads)
    assert set(rounding.layers) == set(model.convolutions()) - set(heads)
    assert all(torch.equal(a, b) for a, b in zip(plain, model.eval().raw_heads(x), strict=True))
    assert list(model.state_dict()) == names, "what is kept is an ordinary network"
    model.train()(x)
    assert all(float(conv.range[1]) > 0 for conv in rounding.layers.values())


def test_gradients_pass_as_if_nothing_were_rounded():
    torch.manual_seed(1)
    conv = nn.Conv2d(3, 4, 3, bias=False)
    conv.__class__, conv.range = RoundedConv2d, torch.zeros(2)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    up = torch.randn(2, 4, 6, 6)
    out = conv.train()(x)
    out.backward(up)
    there = stepped(x.detach(), *spread(x.detach()))
    kernel = rounded(conv.weight.detach())
    assert torch.allclose(out, functional.conv2d(there, kernel), atol=1e-5)
    assert not torch.allclose(out, functional.conv2d(x, conv.weight), atol=1e-5)
    there.requires_grad_()
    kernel.requires_grad_()
    functional.conv2d(there, kernel).backward(up)
    assert torch.allclose(x.grad, there.grad, atol=1e-5)
    assert torch.allclose(conv.weight.grad, kernel.grad, atol=1e-4)


def test_ranges_follow_the_batches_and_go_with_the_state(model, tmp_path):
    rounding = QuantizationAware(model)
    model.train()(torch.rand(2, 3, 32, 32))
    first = rounding.layers[0].range.clone()
    model(3 * torch.rand(2, 3, 32, 32))
    assert first[1] < rounding.layers[0].range[1] < 1.2
    write(tmp_path / "net.cfg", TINY)
    other = QuantizationAware(Darknet(str(tmp_path / "net.cfg")))
    other.load(rounding.state())
    assert all(torch.equal(a.range, other.layers[i].range) for i, a in rounding.layers.items())
    with pytest.raises(ValueError, match="range"):
        other.load({**rounding.state(), "0": torch.zeros(3)})
    with pytest.raises(KeyError):
        other.load({})


def test_what_is_trained_so_loses_less_by_rounding():
    """Convolutions with kernels that round badly learn to give what they gave in float32."""
    torch.manual_seed(2)
    convolutions = [nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 4, 1)]
    slopes = [nn.LeakyReLU(0.1), nn.LeakyReLU(0.1)]
    net = nn.Sequential(convolutions[0], slopes[0], convolutions[1], slopes[1], convolutions[2]).train()
    x = torch.rand(8, 4, 12, 12)
    with torch.no_grad():
        for conv in convolutions:
            conv.weight[:, 0] *= 8  # the rest of a filter has few steps
        wanted = net(x)
    for conv in convolutions:
        conv.__class__, conv.range = RoundedConv2d, torch.zeros(2)

    def error() -> torch.Tensor:
        return (net(x) - wanted).square().mean()

    before = float(error().detach())
    optimizer, count = torch.optim.Adam(net.parameters(), 1e-4), 300
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
    for _ in range(count):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
        falls.step()
    assert float(error().detach()) < before / 1.5
