"""Reconstruction: nearer to what was made before the cut, never further away, for any network."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from pruning_draws import drawn
from random_cfgs import random_network, randomise

from darkslim.base.errors import DatasetError, RequestError
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet
from darkslim.pruning import blocks
from darkslim.pruning.plan import PrunePlan, plan
from darkslim.pruning.reconstruct import reconstruct
from darkslim.pruning.surgery import apply

NET = "[net]\nwidth=16\nheight=16\nchannels=3\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride=1\npad=1\nactivation={}\n"
HEAD = (
    "[convolutional]\nfilters=12\nsize=1\nstride=1\npad=1\nactivation=linear\n"
    "[yolo]\nmask=0,1\nanchors=4,5,10,12\nclasses=1\nnum=2\n"
)


def network(body: str, seed: int = 0) -> Darknet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return randomise(Darknet(parse_cfg(NET + body + HEAD, "net.cfg")), seed).eval()


def pictures(model: Darknet, counts=(4, 4), seed: int = 0, size: int | None = None) -> list:
    g = torch.Generator().manual_seed(seed)
    shape = model.graph.input_shape if size is None else (model.graph.input_shape[0], size, size)
    return [(torch.rand(n, *shape, generator=g), None) for n in counts]


def cut(model: Darknet, layer: int, *gone: int) -> PrunePlan:
    """A plan that cuts these channels of one convolution."""
    keep = {n: np.ones(c.out_channels, dtype=bool) for n, c in model.convolutions().items()}
    keep[layer][list(gone)] = False
    whole = plan(model, 0.0, strategy="slim")
    return PrunePlan(**{**{f: getattr(whole, f) for f in whole.__dataclass_fields__}, "keep": keep})


def made(model: Darknet, images: torch.Tensor) -> dict[int, torch.Tensor]:
    """What every convolution makes before its norm, float64."""
    found, handles = {}, []
    for layer, conv in model.convolutions().items():
        handles.append(
            conv.register_forward_hook(lambda m, i, out, n=layer: found.update({n: out.double().clone()}))
        )
    with torch.inference_mode():
        model.eval().raw_heads(images)
    for handle in handles:
        handle.remove()
    return found


def missed(model: Darknet, compact: Darknet, layer: int, rows: np.ndarray, images: torch.Tensor) -> float:
    """|what the kept filters of a convolution hold - what they held|^2, both as the norm before sees them."""
    a, b = made(model, images)[layer][:, rows], made(compact, images)[layer]
    name = f"batch_norm_{layer}"
    old, new = (getattr(m.module_list[layer], name, None) for m in (model, compact))
    shift = 0 if old is None else (old.running_mean[rows] - new.running_mean).double().view(1, -1, 1, 1)
    return float(((b + shift - a) ** 2).sum())


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_never_further_from_what_was_made_before_on_random_networks(first):
    nearer = 0
    for seed in range(first, first + 25):
        model = random_network(seed, rare=seed % 3 > 0).eval()
        removal = blocks.remove(model, min(1, len(blocks.find(model)[0]))) if seed % 4 == 0 else None
        start = removal.model if removal else model
        try:
            p = plan(start, **drawn(seed, start))
        except RequestError:
            continue
        compact = apply(start, p)
        batches = pictures(model, (2, 3), seed)
        numbers = removal and removal.numbers
        done = reconstruct(start, compact, p, batches, target=model, numbers=numbers, positions=64, seed=seed)
        assert done.pictures == 5
        for fit in done.fits:
            assert 0 <= fit.after <= fit.before, f"seed {seed}: {fit}"
            nearer += fit.after < fit.before
        with torch.inference_mode():
            assert all(torch.isfinite(m).all() for m in compact.raw_heads(batches[0][0])), f"seed {seed}"
    assert nearer > 25


def test_the_errors_that_are_told_are_those_of_the_network():
    """Worked out again from the networks themselves, at all positions."""
    checked = 0
    for seed in range(24):
        model = random_network(seed, rare=False).eval()
        try:
            p = plan(model, 0.5)
        except RequestError:
            continue
        batches = pictures(model, (2, 2), seed)
        images = torch.cat([x for x, _ in batches])
        compact, rough = apply(model, p), apply(model, p)
        done = reconstruct(model, compact, p, batches, positions=1 << 20)
        fit = done.fits[0]  # behind it other layers move as well
        kept = p.keep[fit.layer]
        readers = [model.graph.nodes[i].type for i in model.graph.consumers[fit.layer]]
        if "shortcut" in readers or compact.graph.nodes[fit.layer].shape[0] != kept.sum():
            continue  # it makes up for the other summand; or has carriers
        truth = made(model, images)[fit.layer][:, kept]
        before, after = (missed(model, m, fit.layer, kept, images) for m in (rough, compact))
        assert after <= before * (1 + 1e-9), f"seed {seed}"
        scale = ((truth - truth.mean((0, 2, 3), keepdim=True)) ** 2).sum((0, 2, 3))
        if len(scale) == 1:
            assert fit.before == pytest.approx(before / float(scale), rel=1e-3)
        checked += after < before
    assert checked >= 6


def test_a_channel_that_others_can_stand_for_is_not_missed():
    model = network(CONV.format(4, 3, "leaky") + CONV.format(6, 3, "leaky"))
    first, bn = model.convolutions()[0], model.batch_norms()[0]
    with torch.no_grad():  # channel 3 is twice channel 1, behind the activation too
        first.weight[3] = first.weight[1]
        bn.running_mean[3], bn.running_var[3] = bn.running_mean[1], bn.running_var[1]
        bn.weight[3], bn.bias[3] = 2 * bn.weight[1], 2 * bn.bias[1]
    p = cut(model, 0, 3)
    compact = apply(model, p)
    batches = pictures(model, (8, 8))
    held_out = pictures(model, (4,), seed=9)[0][0]
    rough = [m.clone() for m in compact.raw_heads(held_out)]
    done = reconstruct(model, compact, p, batches)
    true = model.raw_heads(held_out)
    apart = [
        max(float((a - b).abs().max()) for a, b in zip(maps, true, strict=True))
        for maps in (rough, compact.raw_heads(held_out))
    ]
    assert apart[1] < 1e-2 * apart[0]
    assert done.fits[0].layer == 1 and done.fits[0].after < 1e-5 < done.fits[0].before
    wanted = model.convolutions()[1].weight[:, 1] + 2 * model.convolutions()[1].weight[:, 3]
    assert torch.allclose(compact.convolutions()[1].weight[:, 1], wanted, atol=2e-2)


def test_only_what_lies_behind_the_cut_changes():
    model = network(CONV.format(4, 3, "leaky") * 3)
    p = cut(model, 1, 0, 2)
    compact = apply(model, p)
    first = compact.module_list[0].state_dict()
    before = {k: v.clone() for k, v in first.items()}
    done = reconstruct(model, compact, p, pictures(model))
    assert [fit.layer for fit in done.fits] == [2, 3]
    assert all(torch.equal(v, before[k]) for k, v in compact.module_list[0].state_dict().items())


@pytest.mark.parametrize(
    "body",
    [
        CONV.format(8, 3, "mish") + CONV.format(8, 3, "leaky").replace("filters", "groups=2\nfilters"),
        CONV.format(8, 3, "leaky")
        + CONV.format(8, 3, "leaky").replace("filters", "groups=8\nfilters")
        + CONV.format(6, 1, "leaky"),
        CONV.format(8, 3, "swish").replace("batch_normalize=1", "batch_normalize=0")
        + CONV.format(8, 3, "leaky"),
        CONV.format(8, 3, "leaky").replace("stride=1", "stride=2")
        + CONV.format(8, 3, "leaky").replace("size=3", "size=5\ndilation=2"),
    ],
    ids=["groups", "depthwise", "without norms", "strides and dilation"],
)
def test_what_stays_makes_up_for_what_went(body):
    model = network(CONV.format(8, 3, "leaky") + body)
    p = plan(model, 0.4, strategy="slim")
    compact, batches = apply(model, p), pictures(model, (8, 8, 8))
    images = torch.cat([x for x, _ in batches])
    true = torch.cat([m.flatten(1) for m in model.raw_heads(images)], 1)

    def error() -> float:
        return float(((torch.cat([m.flatten(1) for m in compact.raw_heads(images)], 1) - true) ** 2).mean())

    before = error()
    reconstruct(model, compact, p, batches)
    assert error() < 0.7 * before


def test_a_chain_makes_up_for_what_its_identity_lost(monkeypatch):
    shortcut = "[shortcut]\nfrom=-3\nactivation=linear\n"
    model = network(
        CONV.format(8, 3, "leaky")
        + CONV.format(6, 3, "linear")
        + CONV.format(8, 1, "leaky")
        + CONV.format(6, 3, "mish")
        + shortcut
    )
    p = cut(model, 0, 0, 1, 2)
    batches = pictures(model, (8, 8, 8))
    images = torch.cat([x for x, _ in batches])

    def left(change: bool = True) -> float:
        compact = apply(model, p)
        if change:
            done = reconstruct(model, compact, p, batches, positions=1 << 20)
            assert [fit.layer for fit in done.fits] == [1, 2, 3, 5]
        with torch.inference_mode():
            true, now = (m.layer_outputs(images)[4] for m in (model, compact))
        return float(((true - now) ** 2).mean())

    told = left()
    monkeypatch.setattr("darkslim.pruning.reconstruct._Job._lost", lambda *_: 0.0)
    alone = left()
    assert told < 0.98 * alone < left(change=False)


def test_removed_blocks_are_made_up_for():
    block = (
        CONV.format(4, 1, "leaky") + CONV.format(8, 3, "leaky") + "[shortcut]\nfrom=-3\nactivation=linear\n"
    )
    model = network(CONV.format(8, 3, "leaky") + block * 3)
    removal = blocks.remove(model, 1)
    p = plan(removal.model, 0.2, strategy="slim")
    compact, batches = apply(removal.model, p), pictures(model, (8, 8, 8))
    images = torch.cat([x for x, _ in batches])

    def error() -> float:
        return float(
            sum(
                ((a - b) ** 2).mean()
                for a, b in zip(model.raw_heads(images), compact.raw_heads(images), strict=True)
            )
        )

    before = error()
    reconstruct(removal.model, compact, p, batches, target=model, numbers=removal.numbers)
    assert error() < 0.5 * before


def test_memory_changes_nothing_but_time():
    model = random_network(7, rare=False).eval()
    p, batches = plan(model, 0.5, strategy="slim"), pictures(model, (3, 4))
    one, two = apply(model, p), apply(model, p)
    reconstruct(model, one, p, batches)
    reconstruct(model, two, p, batches, memory=1)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_bytes_and_shares_are_the_same_pictures_and_another_size_will_do():
    model = network(CONV.format(6, 3, "leaky") * 2)
    p = plan(model, 0.4)
    pixels = (torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    one, two = apply(model, p), apply(model, p)
    reconstruct(model, one, p, [(pixels, None)])
    reconstruct(model, two, p, [(pixels.float() / 255, None)])
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_what_is_refused_leaves_the_network_as_it_was():
    model = network(CONV.format(6, 3, "leaky") * 3)
    p = plan(model, 0.4)
    compact = apply(model, p).train()
    before = {k: v.clone() for k, v in compact.state_dict().items()}

    def stopping(layers, **_):
        yield from itertools.islice(layers, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(model, compact, p, pictures(model), progress=stopping)
    with pytest.raises(DatasetError, match="no batch of training pictures"):
        reconstruct(model, compact, p, [])
    broken = [(torch.full((4, 3, 16, 16), float("nan")), None)]
    with pytest.raises(DatasetError, match="layer 1 makes numbers that are not finite"):
        reconstruct(model, compact, p, broken)
    with pytest.raises(RequestError, match="other widths"):
        reconstruct(model, model, p, pictures(model))
    assert all(torch.equal(v, before[k]) for k, v in compact.state_dict().items()) and compact.training
