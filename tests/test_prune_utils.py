"""The Python face of pruning, used as the interface document shows it; and the tables."""

from __future__ import annotations

import torch
from random_cfgs import random_network

import prune_utils
from darkslim.report import tables


def test_the_documented_calls():
    model = random_network(4)
    plan = prune_utils.plan(model, percent=0.7, strategy="normal", layer_keep=0.01, round_to=1)
    masked = prune_utils.masked(model, plan)
    compact = prune_utils.apply(model, plan, fold="exact")
    x = torch.rand(2, *model.graph.input_shape)
    with torch.inference_mode():
        assert masked(x).shape == compact(x).shape == model(x).shape
        assert torch.allclose(masked(x), compact(x), rtol=1e-3, atol=1e-3)
    assert set(plan.keep) == {n.index for n in model.graph.nodes if n.type == "convolutional"}
    assert compact.cfg is not model.cfg and prune_utils.prove(model, plan, compact).error < 1e-5


def test_everything_in_all_is_there():
    assert all(hasattr(prune_utils, name) for name in prune_utils.__all__)


def test_the_table_by_hand():
    before = {"map50": 0.8, "params": 1000, "macs": 2_000_000_000, "bytes": 4_000_000}
    before |= {"latency": 0.1, "latency_spread": 0.03}
    after = {"map50": 0.79, "params": 250, "macs": 1_000_000_000, "bytes": 1_000_000}
    after |= {"latency": 0.05, "latency_spread": 0.02}
    table = tables.comparison(before, after)
    for cell in (
        "0.8000",
        "0.7900",
        "-0.0100",
        "1,000",
        "-75.0%, 4.00x",
        "2.000 G",
        "1.0 MB",
        "100.0 ms ±3%",
        "50.0 ms ±2%",
        "2.00x",
    ):
        assert cell in table
    noisy = tables.comparison(before, {**after, "latency_spread": 0.4})
    assert (
        "50.0 ms ±40%" in noisy
        and "not measurable here" in noisy
        and "2.00x" not in noisy.split("latency")[1]
    )
    assert "mAP50" not in tables.comparison({**before, "map50": None}, {**after, "map50": None})


def test_layers_and_reasons():
    table = tables.layers([(0, 16, 8), (2, 10, 10)], {0: 1})
    assert "50%" in table and "69%" in table and "all" in table
    assert tables.protected([(1, "a"), (4, "b"), (7, "a")]) == "  layers 1, 7: a\n  layer 4: b"
    assert (
        tables.histogram([(0.0, 0.5, 4), (0.5, 1.0, 0), (1.0, 1.5, 1)], width=4)
        .splitlines()[1]
        .rstrip()
        .endswith("0")
    )
