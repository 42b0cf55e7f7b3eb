"""Layers cut alone: what is cut, what it costs, and the floors that follow."""

from __future__ import annotations

import csv
import io

import pytest
import torch
from matplotlib.colors import to_rgb
from small_networks import build, conv, section

from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.pruning.layer_losses import LayerLoss, floors, layer_losses
from darkslim.pruning.plan import plan
from darkslim.report import layers_report


def weakest(model: Darknet) -> float:
    """A loss that counts gammas at zero."""
    return 1 + sum(int((bn.weight == 0).sum()) for bn in model.batch_norms().values())


def test_one_layer_alone_loses_its_weakest_channels():
    model, seen = build(conv(8), conv(6), conv(5), gammas={0: [0.1 * i for i in range(8, 0, -1)]}), []

    def loss(network: Darknet) -> float:
        zeros = {i: (bn.weight == 0).nonzero().flatten().tolist() for i, bn in network.batch_norms().items()}
        seen.append({layer: gone for layer, gone in zeros.items() if gone})
        return weakest(network)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = layer_losses(model, loss, (0.5, 0.25, 1.0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert seen[0] == {} and all(len(cut) == 1 for cut in seen[1:]), "each layer alone"
    assert [row.share for row in rows[:3]] == [0.25, 0.5, 1.0]
    for row in rows:
        assert row.layers == (row.layer,) and row.rise == row.cut
        wanted = min(int(row.share * row.channels), row.channels - 1)
        assert row.cut == wanted, "the last channel stays"
    gammas = {i: bn.weight for i, bn in model.batch_norms().items()}
    for cut in seen[1:]:
        ((layer, gone),) = cut.items()
        assert sorted(gone) == sorted(gammas[layer].abs().argsort()[: len(gone)].tolist())


def test_what_shortcuts_join_is_one_layer():
    joint = section("shortcut", from_="-3", activation="leaky")
    model = build(conv(8), conv(4), conv(8), joint, conv(4), conv(8), joint, conv(6))
    rows = layer_losses(model, weakest, (0.5,), strategy="slim")
    joined = [row for row in rows if len(row.layers) > 1]
    assert [row.layers for row in joined] == [(0, 2, 5)]
    channels = Channels(model.graph)
    for row in joined:
        assert len({channels.ids[layer].tobytes() for layer in row.layers}) == 1
    listed = [layer for row in rows for layer in row.layers]
    assert len(listed) == len(set(listed))


def row(share: float, rise: float, layers=(3,), channels: int = 8) -> LayerLoss:
    return LayerLoss(layers[0], layers, channels, share, int(share * channels), rise)


def test_floors_lie_where_the_loss_reaches_what_is_allowed():
    rows = [row(0.25, 0.0), row(0.5, 0.1), row(0.75, 0.5), row(0.25, 2.0, (5, 9)), row(0.5, 9.0, (5, 9))]
    found = floors(rows, 0.3)
    assert found[3] == pytest.approx(1 - 0.625), "half way between a half and three quarters"
    assert found[5] == found[9] == pytest.approx(1 - 0.25 * 0.15)
    assert floors(rows, 99.0) == {3: 0.25, 5: 0.5, 9: 0.5}, "no further than was tried"
    assert floors(rows, 0.0)[5] == 1.0
    dips = [row(0.25, -0.2), row(0.5, 0.2), row(0.75, 0.1)]
    assert floors(dips, 0.15)[3] == pytest.approx(1 - (0.25 + 0.25 * 0.35 / 0.4)), "the first that costs more"


def test_a_plan_keeps_to_floors():
    rising = [0.01 * i for i in range(1, 11)]
    model, layer = build(conv(10), conv(10), conv(10), gammas={0: rising, 1: [1 + g for g in rising]}), 0
    free, bound = plan(model, 0.3), plan(model, 0.3, floors={layer: 0.9})
    assert free.keep[layer].sum() < bound.keep[layer].sum() == 9
    assert bound.cut == free.cut, "others give more"


def test_table_csv_and_picture():
    rows = [row(0.25, 0.004), row(0.5, 0.31), row(0.25, 12.0, (5, 9)), row(0.5, -0.02, (5, 9))]
    table = layers_report.layers_table(rows)
    assert "25% cut" in table and "+0.4%" in table and "5 and 1 more" in table and "+1200.0%" in table
    read = list(csv.DictReader(io.StringIO(layers_report.layers_csv(rows).decode("ascii"), newline="")))
    assert [r["layers"] for r in read] == ["3", "3", "5 9", "5 9"]
    assert [float(r["rise"]) for r in read] == [0.004, 0.31, 12.0, -0.02]
    figure = layers_report.draw_layers(rows, "net.cfg")
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(texts) == {"+0%", "+31%", "13x", "-2%"}
    assert to_rgb(texts["13x"].get_color()) == (1, 1, 1), "readable on dark"
