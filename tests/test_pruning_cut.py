"""A whole cut in memory, and the advice that goes before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from random_cfgs import randomise
from small_networks import build, conv, section

from darkslim.base.errors import ProofError, RequestError
from darkslim.pruning import cut, surgery, verify
from darkslim.pruning.advice import warnings_for
from darkslim.pruning.budget import Target
from darkslim.pruning.importance import NEAR_ZERO
from darkslim.pruning.plan import plan

ADD = section("shortcut", from_=-3, activation="linear")
BLOCK = conv(3, activation="leaky") + conv(4, 3, activation="leaky") + ADD


def blocky():
    """Layer 0; blocks 1 to 3 and 4 to 6, the first the weaker; a loose layer 7; head 8 and 9."""
    model = randomise(build(conv(4, 3, "leaky"), BLOCK, BLOCK, conv(6, 3, "leaky")), 1)
    with torch.no_grad():
        for layer, bn in model.batch_norms().items():
            bn.weight.copy_(torch.linspace(0.1, 1, bn.num_features) * (0.5 if layer == 2 else 1))
    return model


def state(model) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


# ------------------------------------------------------------------------------------------------------------
# ------ cuts


def test_channels_alone():
    model = blocky()
    before, decision = state(model), plan(model, percent=0.5, strategy="slim")
    made = cut.make(model, decision)
    assert made.model is model and same(before, state(model))
    assert (made.removal, made.blocks, made.numbers, made.fused, made.folded_map50, made.pictures) == (
        None,
        (),
        None,
        False,
        None,
        0,
    )
    assert same(state(made.compact), state(surgery.apply(model, decision))) and not made.compact.training
    assert made.proof.error <= verify.TOLERANCE and made.differences.keys() == {"exact", "interior", "none"}
    assert (
        made.differences["exact"] <= 1e-6 < 1e-4 < min(made.differences["interior"], made.differences["none"])
    )
    widths = {layer: made.compact.convolutions()[layer].out_channels for layer in model.convolutions()}
    assert made.rows() == [
        (layer, full, widths[layer])
        for layer, full in ((0, 4), (1, 3), (2, 4), (4, 3), (5, 4), (7, 6), (8, 12))
    ]
    for layer, count in made.carriers().items():
        bn = made.compact.batch_norms().get(layer)
        assert (
            count
            == (0 if bn is None else int((bn.weight == 0).sum()))
            == widths[layer] - int(decision.keep[layer].sum())
        )
    assert sum(made.carriers().values()) > 0
    assert made.protected() == [(8, "feeds [yolo] layer 9")] == list(decision.protected)


def test_a_block_and_channels():
    """Layers 1 to 3 go, so that layer 4 becomes layer 1, and so on; rows are in the numbers of the whole
    network.
    """
    model = blocky()
    before = state(model)
    removal = cut.without_blocks(model, 1)
    decision = plan(removal.model, percent=0.4, strategy="group")
    made = cut.make(model, decision, removal)
    assert same(before, state(model))
    assert [b.shortcut for b in made.blocks] == [3] and made.blocks[0].body == (1, 2)
    assert (
        made.numbers[0] == 0
        and [made.numbers[old] for old in range(4, 10)] == list(range(1, 7))
        and 2 not in made.numbers
    )
    rows = {layer: (full, left) for layer, full, left in made.rows()}
    assert rows[1] == (3, 0) and rows[2] == (4, 0) and rows[8] == (12, 12)
    for old, new in ((0, 0), (4, 1), (5, 2), (7, 4)):
        assert rows[old] == (
            model.convolutions()[old].out_channels,
            made.compact.convolutions()[new].out_channels,
        )
        assert made.carriers()[old] == rows[old][1] - int(decision.keep[new].sum())
    assert made.carriers().keys() == {0, 4, 5, 7, 8}
    assert made.protected() == [(8, "feeds [yolo] layer 9")]


def test_what_loses_its_shortcuts_with_the_blocks_is_not_called_protected():
    model = blocky()
    assert [layer for layer, _ in cut.make(model, plan(model, percent=0.1)).protected()] == [0, 2, 5, 8]
    one = cut.without_blocks(model, 1)
    assert [layer for layer, _ in cut.make(model, plan(one.model, percent=0.1), one).protected()] == [0, 5, 8]
    both = cut.without_blocks(model, 2)
    made = cut.make(model, plan(both.model, percent=0.5), both)
    assert made.protected() == [(8, "feeds [yolo] layer 9")]
    assert dict((layer, (full, left)) for layer, full, left in made.rows())[0][1] < 4  # and indeed it was cut


def test_without_blocks():
    model = blocky()
    assert cut.without_blocks(model, 0) is None
    assert [b.shortcut for b in cut.without_blocks(model, 2).blocks] == [3, 6]
    with pytest.raises(RequestError, match="shortcuts: 3 residual blocks to remove; at most 2"):
        cut.without_blocks(model, 3)


def test_a_plan_for_the_other_network_is_refused():
    model = blocky()
    removal = cut.without_blocks(model, 1)
    with pytest.raises(RequestError, match="plan"):
        cut.make(model, plan(model, percent=0.4), removal)
    with pytest.raises(RequestError, match="plan"):
        cut.make(model, plan(removal.model, percent=0.4))


def test_ways_of_folding():
    model = blocky()
    for fold in ("interior", "none"):
        made = cut.make(model, plan(model, percent=0.5, fold=fold), fold=fold)
        assert (
            made.fold == fold and made.proof.error <= verify.TOLERANCE and not any(made.carriers().values())
        )
        assert made.proof.relative == pytest.approx(made.differences[fold], rel=1e-6)
    with pytest.raises(RequestError, match="fold: 'some'"):
        cut.make(model, plan(model, percent=0.5), fold="some")


def test_a_cut_that_is_wrong_is_not_handed_out(monkeypatch):
    model = blocky()
    right = surgery.apply

    def wrong(*args):
        compact = right(*args)
        with torch.no_grad():
            compact.batch_norms()[7].bias[0] += 0.5
        return compact

    monkeypatch.setattr(cut.surgery, "apply", wrong)
    with pytest.raises(ProofError):
        cut.make(model, plan(model, percent=0.5))


def test_fused():
    model = blocky()
    made = cut.make(model, plan(model, percent=0.5))
    before = state(made.compact)
    small = cut.fused(made)
    assert small.fused and not made.fused and same(before, state(made.compact))
    assert not small.compact.batch_norms() and made.compact.batch_norms()
    assert dataclasses.replace(small, compact=made.compact, fused=False) == made
    assert small.rows() == made.rows() and small.carriers() == made.carriers()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(small.compact(x), made.compact(x), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------
# ---- advice


def with_gammas(values) -> torch.nn.Module:
    return build(conv(len(values)), gammas={0: list(values)})


HEAP = np.r_[np.full(29, 1e-3), np.linspace(0.5, 1, 71)]  # 29% near zero, which 100 * 0.29 would make 28


@pytest.mark.parametrize("percent, quiet", [(0, True), (0.2, True), (0.29, True), (0.3, False), (0.9, False)])
def test_cutting_the_heap_at_zero_is_safe_and_more_is_not(percent, quiet):
    found = warnings_for(plan(with_gammas(HEAP), percent=percent))
    assert (found == []) == quiet
    if not quiet:
        assert len(found) == 1 and found[0].startswith(
            f"29% of the gammas are near zero (below {NEAR_ZERO:g} of the 99th percentile); "
        )
        assert f"--percent {percent:g} goes deeper" in found[0] and "(safe now: 0.29;" in found[0]


def test_a_network_that_was_never_sparsified():
    found = warnings_for(plan(with_gammas(np.linspace(0.5, 1.5, 21)), percent=0.5))
    assert len(found) == 1 and "never trained for sparsity: only 0% of the gammas" in found[0]
    assert (
        "the median is 1 and the largest 1.5; --percent 0 is safe now, 0.5 cuts" in found[0]
        and "-sr" in found[0]
    )


def test_a_cut_that_was_chosen_by_its_map_needs_no_advice_from_gammas():
    decision = plan(with_gammas(HEAP), percent=0.9)
    assert warnings_for(decision) and not warnings_for(decision, measured=True)


def test_a_request_that_floors_do_not_allow():
    found = warnings_for(plan(with_gammas(np.full(10, 1e-3)), percent=0.9, layer_keep=0.5, round_to=1))
    assert (
        found[0].startswith("9 channels were to be cut, 5 can be: ")
        and "--layer_keep 0.5 and --round_to 1" in found[0]
    )
    assert not warnings_for(plan(with_gammas(HEAP), percent=0.29, layer_keep=0.71))


def test_targets():
    model = with_gammas(
        np.r_[np.full(50, 1e-3), np.linspace(0.5, 1, 50)]
    )  # 5 parameters a filter and 12 of the head's, 12 biases
    now, half = 100 * 17 + 12, 50 * 17 + 12
    assert not warnings_for(plan(model, target=Target("params", half, True)))
    assert not warnings_for(
        plan(model, target=Target("params", half + 9, True))
    )  # one filter more or less is near enough
    floors = warnings_for(plan(model, target=Target("params", 100, True), layer_keep=0.5))
    assert floors == [
        "the target of 100 parameters cannot be met: 862 parameters is the nearest that strategy normal, "
        "--layer_keep 0.5 and --round_to 1 allow"
    ]
    deep = warnings_for(plan(model, target=Target("params", half - 170, True)))
    assert len(deep) == 1 and "cutting 0.6" in deep[0] and "(safe now: 0.5;" in deep[0]
    rich = warnings_for(plan(model, target=Target("params", 2 * now, True)))
    assert len(rich) == 1 and "more than the network has now, 1,712 parameters" in rich[0]
