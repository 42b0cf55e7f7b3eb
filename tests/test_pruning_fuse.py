"""Batch norms folded into convolutions: the same network, without anything that readers could disagree
about.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from random_cfgs import random_network
from test_golden import FAMILIES

from darkslim.base.errors import ProofError, WeightsError
from darkslim.network import schema
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.cfg_plain import plain
from darkslim.network.darknet import Darknet
from darkslim.network.twins import twin
from darkslim.network.weights import load_model
from darkslim.pruning.fuse import fuse, prove_fused
from darkslim.pruning.parts import batch_norm, convolution
from darkslim.pruning.plan import plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import TOLERANCE, prove, save_proven

NET = """[net]
width=32
height=32
channels=1

# the only one with a norm
[conv]
batch_normalize = 1 # why
filters=2
size=1
stride=1
activation=linear

[convolutional]
batch_normalize=0
filters=6
activation=linear

[yolo]
mask=0
anchors=4,5
classes=1
num=1
"""


@pytest.fixture
def tiny() -> Darknet:
    """Two filters whose folding can be done in the head: sqrt(var + 1e-5) is 2 and 1/2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Darknet(parse_cfg(NET, "tiny.cfg")).eval()
    with torch.no_grad():
        convolution(model, 0).weight.copy_(torch.tensor([3.0, -1.0]).view(2, 1, 1, 1))
        bn = batch_norm(model, 0)
        bn.weight.copy_(torch.tensor([4.0, 0.5]))
        bn.bias.copy_(torch.tensor([0.25, -2.0]))
        bn.running_mean.copy_(torch.tensor([1.5, 8.0]))
        bn.running_var.copy_(torch.tensor([4.0 - 1e-5, 0.25 - 1e-5]))
    model.seen = 7
    return model


def test_folding_by_hand(tiny):
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    fused = fuse(tiny)
    conv = convolution(fused, 0)
    # f = 4 / 2 and 0.5 / 0.5; kernels f w; bias beta - f mean
    assert torch.allclose(conv.weight.flatten(), torch.tensor([6.0, -1.0]), rtol=1e-6)
    assert torch.allclose(conv.bias, torch.tensor([0.25 - 2 * 1.5, -2.0 - 8.0]), rtol=1e-6)
    assert torch.equal(convolution(fused, 1).weight, convolution(tiny, 1).weight)
    assert torch.equal(convolution(fused, 1).bias, convolution(tiny, 1).bias)
    assert (fused.seen, fused.training, conv.weight.dtype, conv.weight.device.type) == (
        7,
        False,
        torch.float32,
        "cpu",
    )
    assert (
        all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())
        and "batch_normalize" in tiny.cfg.text
    )


def test_the_cfg_loses_its_norms_and_nothing_else(tiny):
    text = fuse(tiny).cfg.text
    lines = plain(tiny.cfg).text.splitlines()
    assert (
        text.splitlines() == [line for line in lines if not line.startswith("batch_normalize")]
        and "# the only one" in text
    )
    assert not any(
        schema.values(s)["batch_normalize"] for s in parse_cfg(text).layers if s.type == "convolutional"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Darknet(parse_cfg(text)).batch_norms() == {}


def test_golden_families_still_compute_what_darknet_does(golden, tmp_path):
    for family in FAMILIES:
        model = load_model(golden / family / "net.cfg", golden / family / "net.weights")
        fused = fuse(model)
        assert fused.seen == model.seen == 32013312 and not fused.batch_norms()
        assert prove_fused(model, fused).error < 5e-7, family


def test_random_networks_pruned_then_fused(tmp_path):
    carriers = 0
    for seed in range(12):
        model = random_network(seed)
        p = plan(model, 0.6)
        compact = apply(model, p)
        carriers += sum(int((bn.weight == 0).sum()) for bn in compact.batch_norms().values())
        fused = fuse(compact)
        proof = prove_fused(compact, fused, seed=seed)
        assert proof.error == proof.relative < 5e-7 < TOLERANCE, f"seed {seed}"
        assert prove(model, p, fused).error < 5e-7, f"seed {seed}"  # straight against the masked network
    assert carriers > 10


def test_the_weights_of_shortcuts_are_carried():
    model = next(m for m in map(random_network, range(100)) if "weights_type=per_channel" in m.cfg.text)
    fused = fuse(model)
    layer = next(n.index for n in model.graph.nodes if n.opts.get("weights_type") == "per_channel")
    assert torch.equal(fused.module_list[layer].weights, model.module_list[layer].weights)
    assert fused.module_list[layer].weights is not model.module_list[layer].weights


def test_fusing_twice_changes_nothing(tiny):
    once = fuse(tiny)
    twice = fuse(once)
    assert twice.cfg.to_bytes() == once.cfg.to_bytes()
    assert all(torch.equal(v, twice.state_dict()[k]) for k, v in once.state_dict().items())


def test_a_fused_network_is_written_and_comes_back(tiny, tmp_path):
    fused = fuse(tiny)
    paths = [tmp_path / name for name in ("x.cfg", "x.pth", "x.weights")]
    save_proven(fused, *paths)
    assert "batch_normalize" not in paths[0].read_text()
    assert paths[2].stat().st_size == 20 + 4 * (2 + 2 + 6 + 12)
    x = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        for path in paths[1:]:
            assert torch.equal(load_model(read_cfg(paths[0]), path)(x), fused(x))


@pytest.mark.parametrize(
    "name, value, values",
    [
        ("weight", 1e38, "1 of 2 values of kernels"),  # 30 * 1e38 / 2 does not fit, -1 * 1e38 / 0.5 does
        ("running_mean", 3e38, "1 of 2 values of bias"),  # 2 * 3e38 is too large
        ("running_var", -1.0, "2 of 2 values of kernels"),
        ("bias", float("nan"), "2 of 2 values of bias"),
    ],
)
def test_what_float32_cannot_hold_is_refused_with_its_layer(tiny, name, value, values):
    with torch.no_grad():
        getattr(batch_norm(tiny, 0), name).fill_(value)
        if name == "weight":
            convolution(tiny, 0).weight[0] = 30.0
    with pytest.raises(
        WeightsError,
        match=rf"tiny.cfg:7 \[convolutional\] layer 0: {values} are not finite once the batch norm",
    ):
        fuse(tiny)


@pytest.mark.parametrize("fault", [1e-3, float("nan")])
def test_the_proof_finds_a_fault(tiny, fault):
    wrong = twin(fuse(tiny))
    convolution(wrong, 0).bias.data[0] += fault
    with pytest.raises(ProofError, match="differs from the one with batch norms"):
        prove_fused(tiny, wrong)


def test_the_proof_refuses_another_network(tiny):
    wider = plain(tiny.cfg).text.replace("classes=1", "classes=2").replace("filters=6", "filters=7")
    for other in (Darknet(parse_cfg(wider, "wider.cfg")), random_network(0)):
        with pytest.raises(ProofError, match="its layers are not those"):
            prove_fused(tiny, fuse(other))
