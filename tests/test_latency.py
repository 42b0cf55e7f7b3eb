"""The latency table with times that are made up, so that every answer is known; one real measurement; the
cache and its enemies.
"""

from __future__ import annotations

import json
import math
import random
import warnings

import numpy as np
import pytest
import torch
from random_cfgs import random_cfg

from darkslim.base.errors import RequestError
from darkslim.latency import LatencyTable, default_path, networks, table_file, time_networks
from darkslim.latency import stopwatch as watch
from darkslim.latency.grid import Grid, axis
from darkslim.latency.stopwatch import Stopwatch
from darkslim.network.cfg import parse_cfg
from darkslim.network.channels import Channels
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.node import HEADS

pytestmark = pytest.mark.times
TINY = """[net]
width=32
height=32
channels=3

[convolutional]
batch_normalize=1
filters={0}
size=3
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters={1}
size=1
activation=leaky

[convolutional]
batch_normalize=1
filters={0}
size=1
activation=leaky

[convolutional]
batch_normalize=1
filters={1}
size=1
activation=leaky

[route]
layers=-1

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=0,1
anchors=4,5, 10,12
classes=2
num=2
"""


def graph_of(text: str) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Graph(parse_cfg(text, "made-up.cfg"))


def tiny(a: int = 64, b: int = 64) -> Graph:
    return graph_of(TINY.format(a, b))


def macs(node) -> int:
    """Multiply-adds, counted here; for what has no kernel the numbers of the first input."""
    c, h, w = node.in_shapes[0]
    if node.type != "convolutional":
        return (node.shape[0] if node.type == "route" else c) * h * w
    return node.shape[0] * node.shape[1] * node.shape[2] * (c // node.opts["groups"]) * node.opts["size"] ** 2


def affine(node) -> float:
    """Linear in each width, so that what is interpolated must be exact at any width."""
    return 2e-6 + 1e-9 * macs(node)


class Timer:
    """Stands in for measuring; remembers what it was asked for."""

    def __init__(self, time=affine):
        self.time, self.nodes, self.calls = time, [], 0

    def __call__(self, nodes):
        self.calls += 1
        self.nodes += nodes
        return [self.time(n) for n in nodes]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "latency.json"


def narrower(graph: Graph, seed: int, share: float) -> Graph:
    """The network without a random share of what may be cut, written from the channel classes alone."""
    channels, rng = Channels(graph), random.Random(seed)
    kept = np.ones(channels.count, dtype=bool)
    for c in channels.prunable("group").tolist():
        kept[c] = rng.random() >= share
    for layer, _ in channels.slices:
        kept[channels.of(layer)] = True
    for ids in channels.ids:
        if not kept[ids].any():
            kept[ids[0]] = True
    cfg = graph.cfg.copy()
    for layer in channels.convolutions:
        node, section = graph.nodes[layer], cfg.layers[layer]
        section.set("filters", int(kept[channels.ids[layer]].sum()))
        if node.opts["groups"] == node.in_shapes[0][0] > 1:
            section.set("groups", int(kept[channels.of(node.inputs[0])].sum()))
    return Graph(cfg)


def test_the_widths_that_are_measured():
    assert axis(64, True) == (1, 9, 16, 25, 32, 57, 64)
    assert axis(256, True) == (1, 9, 16, 57, 64, 121, 128, 249, 256)
    assert axis(24, True) == (1, 9, 16, 24) and axis(40, True) == (1, 9, 16, 25, 32, 40)
    assert axis(3, True) == (1, 3) and axis(1, True) == (1,)
    assert axis(64, False) == (1, 4, 16, 32, 64)


def test_between_the_measured_widths():
    grid = Grid(((1, 9, 16, 25, 32), (10,)), (1.0, 3.0, 10.0, 7.0, 20.0))
    assert grid.at((16, 10), True) == 10.0 and grid.at((25, 10), True) == 7.0
    assert grid.at((5, 10), True) == 2.0  # half way from 1 to 9
    assert grid.at((17, 10), True) == 5.0  # the ladder of widths that fill no block: 9 and 25
    assert grid.at((29, 10), True) == 8.0  # 25 and then on along the same line
    assert grid.at((20, 10), False) == pytest.approx(10 - 3 * 4 / 9)  # one ladder: 16 and 25
    square = Grid(((16, 32), (16, 48)), (0.0, 4.0, 8.0, 16.0))
    assert square.at((16, 32), True) == 2.0 and square.at((32, 32), True) == 12.0
    coarse = Grid(((1, 32, 64, 128),), (1.0, 4.0, 6.0, 20.0))
    assert coarse.at((16,), True) == 3.0  # the ladder of whole blocks, on below its first
    falling = Grid(((1, 9, 25),), (5.0, 4.0, 0.5))
    assert falling.at((31,), True) == 0.0  # never less than nothing


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_any_narrower_network_is_known_and_exact_where_time_is_linear(path, seed, share):
    graph, timer = graph_of(random_cfg(seed)), Timer()
    table = LatencyTable(path, timer=timer)
    table.measure(graph)
    assert timer.calls == 1
    for smaller in (graph, narrower(graph, seed, share)):
        free = [
            n
            for n in smaller.nodes
            if n.type == "dropout" or (n.type == "route" and len(n.inputs) == 1 and n.opts["groups"] == 1)
        ]
        assert all(table.layer(n) == 0 for n in free)
        costly = [n for n in smaller.nodes if n not in free]
        for node in costly:
            assert table.layer(node) == pytest.approx(affine(node), rel=1e-9), node.section.place
        assert table.seconds(smaller) == pytest.approx(sum(map(affine, costly)), rel=1e-9)
    table.measure(narrower(graph, seed, 0.0))  # the same network once more
    assert timer.calls == 1


@pytest.mark.parametrize("seed", range(12))
def test_every_node_that_is_asked_for_can_be_built_and_makes_the_shape_it_says(path, seed):
    def run(nodes):
        pool = watch._Pool(1 << 18, torch.device("cpu"))
        with torch.inference_mode():
            for node in nodes:
                assert watch._floats(node) <= 1 << 18
                y = watch._call(node, pool)()
                cells = len(node.opts["mask"]) * node.shape[1] * node.shape[2] if node.type in HEADS else 0
                assert y.shape == ((1, cells, 5 + node.opts["classes"]) if cells else (1, *node.shape)), (
                    node.type
                )
                assert torch.isfinite(y).all()
        return [1.0] * len(nodes)

    LatencyTable(path, timer=run).measure(graph_of(random_cfg(seed)))


def test_more_channels_never_take_less_time_if_they_were_not_measured_so(path):
    def saturating(node):
        return 1e-6 + 1e-8 * math.sqrt(node.in_shapes[0][0]) * node.shape[0] ** 0.7

    table = LatencyTable(path, timer=Timer(saturating))
    table.measure(tiny())
    for step in (range(16, 65, 16), [w for w in range(1, 65) if w % 16]):
        times = [table.layer(tiny(32, w).nodes[1]) for w in step]
        assert all(a < b for a, b in zip(times, times[1:], strict=False))
        times = [table.layer(tiny(w, 25).nodes[1]) for w in step]
        assert all(a < b for a, b in zip(times, times[1:], strict=False))
    for a in axis(64, True):
        for b in axis(64, True):  # what was measured is given back as it was
            assert table.layer(tiny(a, b).nodes[1]) == saturating(tiny(a, b).nodes[1])


def test_widths_that_fill_no_block_have_times_of_their_own(path):
    def blocks(node):
        whole = node.shape[0] % 16 == 0
        return 1e-6 * math.ceil(node.shape[0] / 16) * (1.0 if whole else 1.5)

    table = LatencyTable(path, timer=Timer(blocks))
    table.measure(tiny())
    assert table.layer(tiny(64, 48).nodes[1]) == pytest.approx(3e-6)
    assert table.layer(tiny(64, 41).nodes[1]) == pytest.approx(4.5e-6)  # 25 and 57 take 3 and 6


def test_what_is_alike_is_measured_once_and_what_is_fixed_at_one_width(path):
    timer = Timer()
    table = LatencyTable(path, timer=timer)
    table.measure(tiny())
    # 7 widths behind the image, 7 x 7 for three 1x1 layers that are alike, 7 into the 14 filters of the head,
    # the head
    assert len(timer.nodes) == 7 + 49 + 7 + 1
    seen = {(n.in_shapes[0][0], n.shape[0]) for n in timer.nodes if n.opts.get("size") == 3}
    assert {cin for cin, _ in seen} == {3} and {cout for _, cout in seen} == set(axis(64, True))
    linear = [n for n in timer.nodes if n.opts.get("activation") == "linear"]
    assert {n.shape[0] for n in linear} == {14} and {n.opts["filters"] for n in linear} == {14}
    before = len(timer.nodes)
    table.measure(tiny(64, 32))  # 1x1: (1, 9, 16, 25, 32) are known already, and so is everything else
    assert len(timer.nodes) == before
    table.measure(tiny(64, 40))  # only 40 is new: 7 from 64 to 40, 7 from 40 to 64, and one into the head
    assert len(timer.nodes) == before + 7 + 7 + 1


def test_what_is_measured_later_is_what_counts(path):
    def squared(node):
        return 1e-9 * node.shape[0] ** 2

    table = LatencyTable(path, timer=Timer(squared))
    table.measure(tiny())
    assert table.layer(tiny(64, 40).nodes[1]) > squared(tiny(64, 40).nodes[1]) * 1.05  # between 25 and 57
    table.measure(tiny(64, 40))
    assert table.layer(tiny(64, 40).nodes[1]) == squared(tiny(64, 40).nodes[1])


def test_measuring_again_replaces_what_was_measured(path):
    slow = LatencyTable(path, timer=Timer(lambda node: 5.0))
    slow.measure(tiny(64, 48))
    slow.measure(tiny(64, 64))
    slow.save()
    table = LatencyTable(path, timer=(timer := Timer()))
    table.measure(tiny(64, 64))
    assert timer.calls == 0
    table.measure(tiny(64, 64), again=True)
    table.save()
    again, small = (
        LatencyTable(path, timer=never),
        tiny(20, 30),
    )  # the grids up to 48 would be closer, but they are gone
    assert again.seconds(small) == pytest.approx(sum(affine(n) for n in small.nodes if n.index != 4))


def test_a_shape_that_was_not_measured_is_named(path):
    table = LatencyTable(path, timer=Timer())
    with pytest.raises(RequestError, match=r"made-up.cfg:6 \[convolutional\] layer 0 with widths \(3, 64\)"):
        table.seconds(tiny())
    table.measure(tiny())
    with pytest.raises(RequestError, match=r"widths \(3, 80\)"):
        table.seconds(tiny(80))


def test_calibrate_scales_the_sum(path):
    table = LatencyTable(path, timer=Timer())
    table.measure(tiny())
    whole, small = table.seconds(tiny()), table.seconds(tiny(20, 10))
    table.calibrate(3 * whole, tiny())
    table.calibrate(2 * whole, tiny())
    assert table.seconds(tiny()) == pytest.approx(2 * whole) and table.seconds(tiny(20, 10)) == pytest.approx(
        2 * small
    )
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(RequestError, match="times above zero"):
            table.calibrate(wrong, tiny())
    assert table.scale == pytest.approx(2)


# --- the file
# ------------------------------------------------------------------------------------------------------------


def never(nodes):
    raise AssertionError("nothing was to be measured")


def test_what_was_saved_is_not_measured_again(path):
    table = LatencyTable(path, timer=Timer())
    table.measure(tiny())
    table.save()
    again = LatencyTable(path, timer=never)
    again.measure(tiny())
    assert again.seconds(tiny(20, 11)) == table.seconds(tiny(20, 11))
    assert [p.name for p in path.parent.iterdir()] == ["latency.json"]


def test_two_processes_keep_what_each_other_measured(path):
    first, second = LatencyTable(path, timer=Timer()), LatencyTable(path, timer=Timer())
    first.measure(tiny(64, 64))
    second.measure(tiny(48, 24))
    first.save()
    second.save()
    both = LatencyTable(path, timer=never)
    both.measure(tiny(64, 64))
    both.measure(tiny(48, 24))


def test_another_machine_is_another_table(path, monkeypatch):
    here = LatencyTable(path, timer=Timer())
    here.measure(tiny())
    here.save()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    there = LatencyTable(path, timer=Timer(lambda node: 1.0))
    assert (
        there.machine != here.machine
        and "7 threads" in there.machine
        and f"torch {torch.__version__}" in there.machine
    )
    with pytest.raises(RequestError):
        there.seconds(tiny())
    there.measure(tiny())
    there.save()
    assert set(json.loads(path.read_text())["machines"]) == {here.machine, there.machine}
    monkeypatch.undo()
    assert LatencyTable(path, timer=never).seconds(tiny()) == here.seconds(tiny())


def stored(item, version=1):
    return json.dumps({"version": version, "machines": {"m": {"f": [item]}}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\x00\x01",
        "[" * 100_000,
        '{"version": 1}',
        '{"version": 2, "machines": {}}',
        '{"version": 1, "machines": []}',
        '{"version": 1, "machines": {"m": 3}}',
        '{"version": 1, "machines": {"m": {"f": {}}}}',
        "9" * 5000,
        stored(None),
        stored({}),
        stored({"axes": [[1, 2]], "seconds": [1.0]}),
        stored({"axes": [[2, 1]], "seconds": [1.0, 2.0]}),
        stored({"axes": [[1, 1]], "seconds": [1.0, 2.0]}),
        stored({"axes": [[]], "seconds": []}),
        stored({"axes": [[0]], "seconds": [1.0]}),
        stored({"axes": [[True]], "seconds": [1.0]}),
        stored({"axes": [[1.5]], "seconds": [1.0]}),
        stored({"axes": "1", "seconds": [1.0]}),
        stored({"axes": [[1]], "seconds": [0]}),
        stored({"axes": [[1]], "seconds": [-1.0]}),
        stored({"axes": [[1]], "seconds": ["1"]}),
        stored({"axes": [[1]], "seconds": [math.nan]}),
        stored({"axes": [[1]], "seconds": [math.inf]}),
        stored({"axes": [[1]], "seconds": [10**400]}),
        stored({"axes": [[1], [1], [1]], "seconds": [1.0]}),
        stored({"axes": [list(range(1, 100))], "seconds": [1.0] * 99}),
        stored({"axes": [[10**30]], "seconds": [1.0]}),
    ],
)
def test_a_broken_cache_is_a_warning_and_is_written_anew(tmp_path, content):
    path = tmp_path / "latency.json"
    path.write_text(content)
    with pytest.warns(UserWarning, match="latency.json.* ignored"):
        table = LatencyTable(path, timer=Timer())
    table.measure(tiny())
    table.save()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatencyTable(path, timer=never).measure(tiny())


def test_a_broken_entry_costs_only_itself(path):
    table = LatencyTable(path, timer=Timer())
    table.measure(tiny())
    table.save()
    data = json.loads(path.read_text())
    families = data["machines"][table.machine]
    next(grids for name, grids in families.items() if name.startswith("yolo"))[0]["seconds"] = [-1]
    path.write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="1 entries"):
        again = LatencyTable(path, timer=(timer := Timer()))
    again.measure(tiny())
    assert [n.type for n in timer.nodes] == ["yolo"]


def test_a_cache_too_large_to_be_one_is_not_read(path, monkeypatch):
    table = LatencyTable(path, timer=Timer())
    table.measure(tiny())
    table.save()
    monkeypatch.setattr(table_file, "MAX_BYTES", 100)
    with pytest.warns(UserWarning, match="ignored: .*bytes long"):
        LatencyTable(path)


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    table = LatencyTable(tmp_path / "file" / "latency.json", timer=Timer())
    table.measure(tiny())
    with pytest.warns(UserWarning, match="the latency table is not kept"):
        table.save()
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.warns(UserWarning, match="ignored"):
        table = LatencyTable(folder, timer=Timer())
    with pytest.warns(UserWarning, match="not kept"):
        table.save()
    assert folder.is_dir() and (tmp_path / "file").read_text() == ""


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "darkslim" / "latency.json" == LatencyTable(timer=never).path
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_path() == tmp_path / "me" / ".cache" / "darkslim" / "latency.json"


# --- really measuring
# ----------------------------------------------------------------------------------------------------


def test_a_small_network_really_measured(path):
    seen = []

    def progress(items, desc):
        seen.append((len(items), desc))
        return items

    state = torch.get_rng_state()
    table = LatencyTable(path, repeats=1, limit=5, progress=progress)
    table.measure(tiny(8, 8))
    times = [table.layer(n) for n in tiny(5, 3).nodes]
    assert all(0 < t < 1 for i, t in enumerate(times) if i != 4) and times[4] == 0
    assert table.seconds(tiny(5, 3)) == pytest.approx(sum(times)) and seen == [(1, "measuring layers")]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("limit, turns", [(0.0, 2), (3600.0, 6)])
def test_layers_take_turns_and_fewer_of_them_when_time_runs_out(monkeypatch, limit, turns):
    ran = []
    monkeypatch.setattr(watch, "_call", lambda node, pool: lambda: ran.append(node.index))
    monkeypatch.setattr(watch, "POOL", 16)
    nodes = [n for n in tiny(2, 2).nodes if n.type == "convolutional"]
    assert all(t > 0 for t in Stopwatch(repeats=5, limit=limit)(nodes))
    rounds = [ran[i : i + len(nodes)] for i in range(0, len(ran), len(nodes))]
    assert len(rounds) == turns and all(
        r == rounds[0] and sorted(r) == [n.index for n in nodes] for r in rounds
    )


def test_the_spread_of_a_median_by_hand():
    hundred = [float(v) for v in range(1, 101)]  # median 50.5; order statistics 50 -+ 9.8: the 41st and 60th
    assert networks.spread(hundred) == pytest.approx((60 - 41) / 2 / 50.5)
    assert networks.spread([2.0] * 9) == 0
    assert networks.spread([1.0, 2.0, 9.0]) == pytest.approx((9 - 1) / 2 / 2)  # too few: all of the range
    assert networks.spread([0.0, 0.0]) == math.inf


class BusyMachine:
    """Networks that take 1 ms each, with bursts of other work that make everything 6 times slower."""

    def __init__(self, seed: int, busy: float):
        self.draw, self.busy, self.now, self.slow = random.Random(seed), busy, 0.0, False

    def runs(self, *_) -> None:
        if self.draw.random() < 0.2:  # a burst begins or ends
            self.slow = self.draw.random() < self.busy
        self.now += 0.001 * self.draw.uniform(0.97, 1.03) * (6 if self.slow else 1)


@pytest.mark.parametrize("busy", (0, 0.1, 0.25))
def test_identical_networks_come_out_alike_on_a_busy_machine(busy):
    for seed in range(3):
        machine = BusyMachine(seed, busy)
        models = [Darknet(parse_cfg(TINY.format(4, 4), "net.cfg")).eval() for _ in range(2)]
        for model in models:
            model.register_forward_hook(machine.runs)
        one, two = time_networks(models, clock=lambda machine=machine: machine.now)
        assert one.measurable and two.measurable and 0.9 < one.seconds / two.seconds < 1.1
        assert one.turns == two.turns >= networks.LEAST


def test_a_machine_that_is_too_busy_says_so():
    model = Darknet(parse_cfg(TINY.format(4, 4), "net.cfg")).train()
    draw, now = random.Random(0), [0.0]

    def clock() -> float:
        now[0] += draw.lognormvariate(-1, 3)
        return now[0]

    (timing,) = time_networks([model], clock=clock)
    assert not timing.measurable and timing.turns >= networks.LEAST
    assert model.training  # as it came
