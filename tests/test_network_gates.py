"""Gates: the same network with and without them, and cuts of what they close."""

from __future__ import annotations

import copy
import random
import re
import warnings

import numpy as np
import pytest
import torch
from random_cfgs import random_network

from darkslim.base.errors import RequestError
from darkslim.network.cfg import parse_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.gates import Gates, folded
from darkslim.pruning import importance
from darkslim.pruning.plan import plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.valley import valley

NETWORKS = 50


def gated(seed: int, activation: str | None = None, closed: float = 0.4) -> Darknet | None:
    """A random network with gates, some of them closed, in float64; None if nothing of it can be gated."""
    model = random_network(seed)
    if activation:
        text = re.sub(r"activation=(?!linear)\w+", f"activation={activation}", model.cfg.text)
        other = Darknet(parse_cfg(text))
        other.load_state_dict(model.state_dict())
        model = other
    model.gates = Gates(model.graph, "slim")
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    values = 0.3 + torch.rand(model.gates.value.shape, generator=generator, dtype=torch.float64)
    values[torch.rand(values.shape, generator=generator) < closed] = 0
    with torch.no_grad():
        model.gates.value.copy_(values)
    return model if len(values) else None


def heads(model, x):
    with torch.no_grad():
        return torch.cat([m.flatten() for m in model.raw_heads(x)])


def picture(model) -> torch.Tensor:
    x = torch.rand(2, model.cfg.channels, model.cfg.height, model.cfg.width, dtype=torch.float64)
    return x


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_what_gates_close_is_cut_exactly_and_leaves_no_constant(seed):
    torch.manual_seed(seed)
    model = gated(seed, ("leaky", "mish", "swish", "logistic")[seed % 4])
    if model is None:
        pytest.skip("nothing of this network can be cut")
    x = picture(model)
    expected, plain = heads(model, x), folded(model)
    scale = float(expected.abs().max())
    assert plain.gates is None and float((heads(plain, x) - expected).abs().max()) <= 1e-12 * scale
    found = importance.scores("readers", plain, Channels(plain.graph), importance.Context())
    channels = Channels(plain.graph)
    value = dict(zip(model.gates.classes.tolist(), model.gates.value.tolist(), strict=True))
    inputs = [channels.of(channels.graph.nodes[r].inputs[0]) for r in model.gates.layers]
    read = set(np.concatenate(inputs).tolist())
    for layer, score in found.items():
        for channel, cls in enumerate(channels.ids[layer].tolist()):
            if cls in value and cls in read:
                assert (score[channel] == 0) == (value[cls] == 0)
    try:
        decision = plan(plain.float(), "auto", "slim", score="readers", layer_keep=0.0)
    except RequestError:
        assert (model.gates.value == 0).double().mean() < 0.05 or (model.gates.value == 0).all()
        return
    plain = folded(model)
    for fold in ("exact", "none"):
        compact = apply(plain, decision, fold).double()
        difference = float((heads(compact.eval(), x) - expected).abs().max())
        assert difference <= 1e-6 * scale, (fold, difference, scale)


def test_gates_sit_on_every_reader_and_tie_what_shortcuts_join():
    conv = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=1\npad=1\nactivation=mish\n"
    text = (
        "[net]\nwidth=32\nheight=32\nchannels=3\n"
        + conv
        + conv
        + "[shortcut]\nfrom=-2\nactivation=mish\n"
        + conv.replace("stride=1", "stride=1\ngroups=4")
        + conv
        + "[convolutional]\nfilters=6\nsize=1\nstride=1\npad=1\nactivation=linear\n[yolo]\nmask=0\n"
        "anchors=8,8\nnum=1\nclasses=1\n"
    )
    model = Darknet(parse_cfg(text))
    gates = Gates(model.graph, "slim")
    # layers 0, 1 and the depthwise 3 are one class a position; 1 and 4 read it, 5 reads what 4 makes
    assert len(gates.value) == 8 and gates.layers == [1, 4, 5]
    assert Gates(model.graph, "normal").layers == [5]
    gates.value.data[:] = torch.arange(1.0, 9.0)
    assert gates.of(1).tolist() == gates.of(4).tolist() == [1, 2, 3, 4] and gates.of(5).tolist() == [
        5,
        6,
        7,
        8,
    ]
    assert gates.of(0) is None and gates.of(3) is None


def test_copies_and_state():
    model = gated(3)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.gates.value.mul_(2)
    x = picture(model)
    assert not torch.equal(heads(model, x), heads(twin, x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(heads(model, x), heads(twin, x))
    assert [k for k in model.state_dict() if k.startswith("gates")] == ["gates.value"]


def test_layer_by_layer_a_gated_network_is_what_it_is_as_a_whole():
    model = gated(5)
    x = picture(model)
    with torch.no_grad():
        whole = model.layer_outputs(x)
        for node in model.graph.nodes:
            inputs = [x if i < 0 else whole[i] for i in node.inputs]
            assert torch.equal(model.layer_output(node.index, *inputs), whole[node.index])


@pytest.mark.parametrize("seed", range(5))
def test_the_valley_lies_between_two_heaps(seed):
    rng = np.random.default_rng(seed)
    small, large = np.abs(rng.normal(0, 0.02, 300)), np.abs(rng.normal(0.8, 0.15, 700))
    bottom = valley(np.concatenate([small, large]))
    assert small.max() * 0.8 < bottom < np.percentile(large, 5)
    assert valley(np.concatenate([np.zeros(200), 0.01 + rng.random(800)])) < 0.01
    for one in (rng.normal(1, 0.2, 1000), rng.random(1000), rng.exponential(1, 1000), np.ones(50)):
        assert valley(np.abs(one)) is None
    assert valley(np.zeros(10)) is None and valley(np.zeros(0)) is None
    few = np.concatenate([np.zeros(5), rng.normal(1, 0.1, 995)])
    assert valley(np.abs(few)) is None, "five of a thousand are no heap"


def test_a_plan_without_a_valley_is_refused():
    model = random_network(1)
    random.seed(0)
    with warnings.catch_warnings(), pytest.raises(RequestError, match="no valley"):
        warnings.simplefilter("ignore")
        plan(model, "auto", "slim", score="readers")
