"""The requests of test_prune.py: every way to say how much, what to cut, and what becomes of the rest, as a
user types them.

The network has a chain of three residual blocks and a squeeze-and-excitation block; the pictures are noise,
and the truths are what the network itself finds in them, so that a cut costs mAP. Most runs are in this
process, through the command's own door.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import itertools
import json
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import check, load, perform, snapshot, spawn, write
from PIL import Image
from random_cfgs import randomise
from test_bad_requests import locked

import prune_utils
from darkslim.evaluation.postprocess import detections
from darkslim.evaluation.resampling import Hits
from darkslim.latency import Timing
from darkslim.network import profile
from darkslim.network.cfg import parse_cfg, read_cfg
from darkslim.network.darknet import Darknet
from darkslim.network.graph import Graph
from darkslim.network.weights import load_model, save_weights
from darkslim.pipelines.prune_latency import CLOSE, TIMINGS, next_target
from darkslim.pruning import importance
from darkslim.pruning.blocks import remove

WRITTEN = ("out.cfg", "out.png", "out.pth", "out.weights")
CONVOLUTIONS = {0: 8, 1: 6, 2: 8, 4: 6, 5: 8, 7: 6, 8: 8, 10: 16, 12: 4, 13: 16, 15: 12, 16: 14}


def conv(filters: int, size: int = 1, stride: int = 1, activation: str = "leaky", bn: bool = True) -> str:
    return (
        f"[convolutional]\n{'batch_normalize=1' + chr(10) if bn else ''}filters={filters}\nsize={size}\n"
        f"stride={stride}\npad=1\n"
        f"activation={activation}\n\n"
    )


# 0 | 1-3, 4-6, 7-9: residual blocks | 10 | 11-14: squeeze and excitation | 15, 16, 17: the head
NETWORK = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n\n"
    + conv(8, 3, 2)
    + 3 * (conv(6) + conv(8, 3) + "[shortcut]\nfrom=-3\nactivation=linear\n\n")
    + conv(16, 3, 2)
    + "[avgpool]\n\n"
    + conv(4, activation="swish", bn=False)
    + conv(16, activation="logistic", bn=False)
    + "[scale_channels]\nfrom=-4\n\n"
    + conv(12, 3)
    + conv(14, activation="linear", bn=False)
    + "[yolo]\nmask=0,1\nanchors=4,4, 8,8\nclasses=2\nnum=2\n"
)


@dataclass
class Done:
    """What a run left: exit code, lines on stderr, text on stdout, the JSON (empty where it failed)."""

    code: int
    lines: list[str]
    out: str
    report: dict


@dataclass
class Bench:
    """A folder with the network and its data, the current one, and the command run in it."""

    folder: Path
    capfd: object

    def prune(self, *flags, evaluate: bool = False) -> Done:
        words = [
            "--model_def",
            "net.cfg",
            "--model",
            "net.weights",
            "--data_config",
            "two.data",
            "--cfg_out",
            "out.cfg",
            "--model_out",
            "out.pth",
            "--device",
            "cpu",
            "--n_cpu",
            "0",
            "--batch_size",
            "2",
            *([] if evaluate else ["--no_eval"]),
            *flags,
        ]
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        code, said = perform(
            self.capfd, "test_prune", [*words, *([] if "--json" in flags else ["--json", "report.json"])]
        )
        return Done(
            code,
            said.err.splitlines(),
            said.out,
            json.loads(report.read_text()) if report.exists() and code == 0 else {},
        )

    def done(self, *flags, evaluate: bool = False) -> Done:
        """A run that succeeds."""
        done = self.prune(*flags, evaluate=evaluate)
        assert done.code == 0, done.lines
        return done

    def refuses(self, where: str, words: str, *flags, evaluate: bool = False) -> str:
        """The one line of a run that is refused; nothing on disk may have changed."""
        (self.folder / "report.json").unlink(missing_ok=True)
        before = snapshot(self.folder)
        done = self.prune(*flags, evaluate=evaluate)
        check(done.code, done.lines, where, words)
        assert snapshot(self.folder) == before
        return done.lines[0]

    def original(self) -> Darknet:
        return load_model("net.cfg", "net.weights")

    def written(self) -> Darknet:
        """The network that was written, once it is seen that both files hold the same one and only one cfg is
        needed to read them.
        """
        compact, again = load_model("out.cfg", "out.weights"), load_model("out.cfg", "out.pth")
        x = pictures()
        with torch.inference_mode():
            assert torch.equal(compact(x), again(x))
        return compact


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def heads(model) -> torch.Tensor:
    """Raw head maps on random pictures, in float64 with the parameters as they are stored."""
    with torch.inference_mode():
        return model.double().eval().raw_heads(pictures().double())[0]


def apart(model, other) -> float:
    """The largest difference of the heads, of the largest value."""
    a, b = heads(model), heads(other)
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The network with a data set of four training and three other pictures, made once."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "net.cfg", NETWORK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomise(Darknet(parse_cfg(NETWORK)), 5)
    with torch.no_grad():
        bias = model.convolutions()[16].bias
        for anchor in (0, 7):  # boxes of an anchor's size, a few of them sure
            bias[anchor + 2 : anchor + 4] = 0
            bias[anchor + 4] = -1
    save_weights(model, folder / "net.weights")
    for i in range(7):
        path = folder / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = np.random.default_rng(i).integers(0, 255, (8, 8, 3))
        Image.fromarray(np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)).save(path)
        pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            found = detections(model(pixels), 0.01, 0.5)[0].numpy()
        inside = found[(found[:, :4] > 0).all(1) & (found[:, :4] < 32).all(1) & (found[:, 4] > 0.3)]
        inside = inside[(inside[:, 2:4] - inside[:, :2] > 1.5).all(1)]
        assert len(inside) > 10
        rows = [
            (int(c), (x1 + x2) / 64, (y1 + y2) / 64, (x2 - x1) / 32, (y2 - y1) / 32)
            for x1, y1, x2, y2, _, c in inside
        ]
        write(
            folder / "labels" / f"{i}.txt",
            "".join("{} {:.6f} {:.6f} {:.6f} {:.6f}\n".format(*row) for row in rows),
        )
    write(folder / "train.txt", "".join(f"images/{i}.png\n" for i in range(4)))
    write(folder / "valid.txt", "".join(f"images/{i}.png\n" for i in range(4, 7)))
    write(folder / "two.names", "red\ngreen\n")
    write(folder / "two.data", "classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=two.names\n")
    return folder


@pytest.fixture
def bench(made, tmp_path, capfd, monkeypatch) -> Bench:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path, capfd)


@pytest.fixture
def quick(bench, monkeypatch) -> Bench:
    """The same without drawing the picture of the network, which takes longer than these cuts."""
    monkeypatch.setattr(
        importlib.import_module("darkslim.pipelines.prune"), "network_picture", lambda *a: b"not drawn"
    )
    return bench


def kept(report: dict) -> dict[int, int]:
    return {row["layer"]: row["after"] for row in report["layers"]}


def one_line_about(lines: list[str], words: str) -> None:
    assert [line for line in lines if words in line], lines


# ------------------------------------------------------------------------------------------------- what to
# cut and by what

INTERFACE = ("params", "macs", "map50", "latency")


@pytest.mark.parametrize("strategy", ["normal", "shortcut", "slim", "group"])
def test_each_strategy(strategy, bench):
    done = bench.done("--strategy", strategy, "--percent", "0.4")
    report, model = done.report, bench.original()
    plan = prune_utils.plan(model, 0.4, strategy)
    compact = bench.written()
    assert apart(compact, prune_utils.masked(model, plan)) < 1e-5 and report["max_rel_diff"] < 1e-5
    assert {f"{key}_{when}" for key in INTERFACE for when in ("before", "after")} | {
        "max_abs_diff",
        "protected",
        "layers",
    } <= set(report)
    graph = Graph(read_cfg("out.cfg"))
    assert kept(report) == {layer: graph.nodes[layer].shape[0] for layer in CONVOLUTIONS}
    assert {row["layer"]: row["before"] for row in report["layers"]} == CONVOLUTIONS
    assert kept(report) == {
        n: int(k.sum()) + report["layers"][i]["carriers"]
        for i, (n, k) in enumerate(sorted(plan.keep.items()))
    }
    counted = profile.count(graph)
    assert (report["params_after"], report["macs_after"]) == (counted.params, counted.macs)
    joined = {0, 2, 5, 8} | {10, 13}
    protected = {row["layer"] for row in report["protected"]}
    assert {12, 16} <= protected and (joined <= protected) == (strategy == "normal")
    if strategy != "normal":
        assert (
            kept(report)[0] == kept(report)[2] == kept(report)[5] == kept(report)[8] < 8
            and kept(report)[10] == kept(report)[13]
        )
    assert (
        f"not cut by strategy {strategy}:" in done.out
        and f"{report['cut']} of {report['prunable']} prunable channels cut" in done.out
    )
    assert report["strategy"] == strategy and all(Path(name).is_file() for name in WRITTEN)


@pytest.mark.parametrize("score", ["gamma-max", "l2-l2", "depgraph", "lamp", "random"])
def test_several_scores(score, quick):
    done = quick.done("--score", score, "--strategy", "group", "--percent", "0.5")
    assert done.report["score"] == score and f"({score} up to {done.report['threshold']:.4g})" in done.out
    plan = prune_utils.plan(quick.original(), 0.5, "group", score=score)
    assert apart(quick.written(), prune_utils.masked(quick.original(), plan)) < 1e-5


def test_taylor_looks_at_training_pictures(quick):
    done = quick.done("--score", "taylor", "--strategy", "slim", "--percent", "0.5")
    widths = kept(done.report)
    for i in range(4):  # what is far from the truth has other gradients
        write(quick.folder / "labels" / f"{i}.txt", "0 0.9 0.9 0.1 0.1\n")
    assert kept(quick.done("--score", "taylor", "--strategy", "slim", "--percent", "0.5").report) != widths
    write(quick.folder / "two.data", "classes=2\nvalid=valid.txt\nnames=two.names\n")
    quick.refuses("two.data", "train", "--score", "taylor")
    quick.refuses("absent.data", "", "--score", "taylor", "--data_config", "absent.data")
    assert quick.done("--score", "l1", "--data_config", "absent.data").code == 0, (
        "--no_eval needs no data set"
    )


def test_a_seed_below_zero(quick):
    done = quick.prune("--score", "random", "--seed", "-1")
    assert done.code == 2 and "-1 is outside 0 to" in done.lines[-1]


# ------------------------------------------------------------------------------------------------------------
# -- how much


@pytest.mark.parametrize(
    "flags, kind, wanted",
    [
        (("--target-params", "0.6"), "params", "share"),
        (("--target-params", "3k"), "params", 3000),
        (("--target-macs", "0.5"), "macs", "share"),
        (("--target-macs", "0.3M"), "macs", 300_000),
    ],
)
def test_parameters_and_macs(flags, kind, wanted, quick):
    done = quick.done(*flags, "--strategy", "slim")
    target, report = done.report["target"], done.report
    if wanted == "share":
        wanted = float(flags[1]) * report[f"{kind}_before"]
    assert target["kind"] == kind and target["wanted"] == pytest.approx(wanted, rel=1e-12)
    assert (
        target["reached"]
        == report[f"{kind}_after"]
        == getattr(profile.count(Graph(read_cfg("out.cfg"))), kind)
    )
    off = abs(target["reached"] / wanted - 1)
    assert off <= 0.02, off
    assert not [line for line in done.lines if "cannot be met" in line]
    unit = f"{wanted:,.0f} parameters wanted" if kind == "params" else f"{wanted / 1e3:.4g}k MACs wanted"
    assert (
        f"target: {unit}" in done.out
        and "near zero" in done.lines[-1]
        and "--percent 0.6 " not in done.lines[-1]
    )
    assert apart(quick.written(), prune_utils.masked(quick.original(), plan_of(quick, report))) < 1e-5


def plan_of(bench: Bench, report: dict):
    target = prune_utils.Target(report["target"]["kind"], report["target"]["wanted"], True)
    return prune_utils.plan(bench.original(), strategy=report["strategy"], target=target)


def test_targets_that_cannot_be_met_are_said(quick):
    one_line_about(quick.done("--target-params", "40").lines, "the target of 40 parameters cannot be met: ")
    done = quick.done("--target-macs", "1G")
    assert done.lines == [
        "warning: the target of 1G MACs is more than the network has now, 619.1k MACs: no channel is cut"
    ]
    assert done.report["cut"] == 0 and done.report["params_after"] == done.report["params_before"]
    done = quick.done("--target-params", "1.0")  # a share
    assert (
        done.lines == []
        and done.report["cut"] == 0
        and done.report["target"]["wanted"] == done.report["params_before"]
    )


def test_a_share_is_of_the_network_as_it_was_given(quick):
    done = quick.done("--target-params", "0.5", "--shortcuts", "1", "--strategy", "slim")
    assert done.report["target"]["wanted"] == pytest.approx(done.report["params_before"] / 2)
    assert done.report["params_after"] == pytest.approx(done.report["params_before"] / 2, rel=0.02)


def test_latency_by_a_table_that_is_kept(quick, monkeypatch):
    monkeypatch.setattr(
        "darkslim.pipelines.prune_latency.FAR", 1e9
    )  # however busy this machine is: measured once
    flags = ("--target-latency", "0.7", "--latency_table", "cache/t.json")
    done = quick.done(*flags)
    target = done.report["target"]
    assert target["kind"] == "latency" and 0 < target["wanted"] < 1 and 0 < target["reached"] < 1
    assert re.search(r"estimated [\d.]+ ms, timed [\d.]+ ms, wanted [\d.]+ ms", done.out)
    kept_times = Path("cache/t.json").read_bytes()
    assert json.loads(kept_times)["machines"]

    def again(self, nodes):
        pytest.fail("measured again")

    monkeypatch.setattr("darkslim.latency.table.Stopwatch.__call__", again)
    report = quick.done(*flags, "--target-latency", "0.1ms").report
    assert (
        report["target"]["wanted"] == pytest.approx(1e-4, rel=1e-12)
        and Path("cache/t.json").read_bytes() == kept_times
    )
    write(quick.folder / "net.cfg", NETWORK.replace("batch_normalize=1\n", ""))
    with torch.no_grad():
        save_weights(Darknet(read_cfg("net.cfg")), "net.weights")
    quick.refuses("", "nothing can be pruned", "--target-latency", "0.5", "--latency_table", "new.json")


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_a_time_is_found_however_the_table_is_bent(power):
    """An engine whose time goes with a power of what the table says: six timings are enough."""
    wanted, asked, tried = 0.4, 0.4, []
    for _ in range(TIMINGS):
        tried.append((asked, 0.7 * asked**power))
        if abs(tried[-1][1] / wanted - 1) <= CLOSE:
            break
        asked = min(next_target(tried, wanted), 1.0)
    assert abs(tried[-1][1] / wanted - 1) <= CLOSE, tried


def test_latency_is_that_of_the_engine(quick, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("darkslim.pipelines.prune_latency.TIMINGS", 1)  # each is a process of its own
    done = quick.done("--target-latency", "0.8", "--latency_table", "cache/t.json", "--engine", "onnxruntime")
    assert "latency, batch 1, onnxruntime" in done.out and done.report["latency_after"] > 0
    assert done.report["engine"] == "onnxruntime"
    quick.refuses("argument --engine", "invalid choice", "--engine", "paper", "--percent", "0.5")


def test_the_multiple_is_found_by_timing(quick, monkeypatch):
    """The times that an engine with blocks of 8 channels would have: the multiple is 8, and said so."""

    def times(models, engine, size, device):
        assert engine == "torch-folded"
        blocks = [
            sum(-(-node.shape[0] // 8) * 8 * -(-node.in_shapes[0][0] // 8) for node in model.graph.nodes)
            for model in models
        ]
        return [Timing(float(count), 0.0, 9) for count in blocks]

    monkeypatch.setattr("darkslim.pipelines.prune_job.time_under", times)
    done = quick.done("--percent", "0.5", "--round_to", "auto", "--engine", "torch-folded")
    found = re.search(r"--round_to (\d+), from the ms a GMAC in torch-folded of multiples", done.out)
    assert found and done.report["round_to"] == int(found[1]) > 1
    for row in done.report["layers"]:
        assert row["after"] % int(found[1]) == 0 or row["after"] == row["before"]


def test_a_multiple_that_misses_the_target_is_not_taken(quick, monkeypatch):
    """Even where the widest one would be the quickest by far."""

    def times(models, engine, size, device):
        widths = [min(node.shape[0] for node in model.graph.nodes) for model in models]
        return [Timing(1e-3 / width, 0.0, 9) for width in widths]

    monkeypatch.setattr("darkslim.pipelines.prune_job.time_under", times)
    done = quick.done("--target-macs", "0.2", "--round_to", "auto", "--strategy", "slim", "--score", "l1")
    assert re.search(r"; (\d+, )*64 would miss the target", done.out)
    assert done.report["macs_after"] <= 0.2 * 1.01 * done.report["macs_before"]


@pytest.mark.parametrize("exact, interior, best", [(0.5, 0.5005, "exact"), (0.5, 0.6, "interior")])
def test_the_way_of_folding_is_found_by_what_it_keeps(quick, monkeypatch, exact, interior, best):
    words = ("--percent", "0.4", "--fold", "auto", "--reconstruct", "1", "--choose_on", "valid.txt")
    scores = iter([exact, interior])
    monkeypatch.setattr("darkslim.pipelines.pictures.Pictures.choose", lambda self, model: next(scores))
    done = quick.done(*words, evaluate=True)
    assert done.report["fold"] == best and f"--fold {best}" in done.out and next(scores, None) is None


def test_scores_are_worked_out_once_however_many_cuts_are_tried(quick, monkeypatch):
    score, seen = importance.SCORES["taylor"], []
    counted = {**importance.SCORES, "taylor": lambda *words: seen.append(0) or score(*words)}
    monkeypatch.setattr(importance, "SCORES", counted)
    words = ("--score", "taylor", "--fold", "auto", "--round_to", "auto", "--reconstruct", "1")
    quick.done(*words, "--target-macs", "0.5", "--choose_on", "valid.txt", evaluate=True)
    assert len(seen) == 1


def test_layers_are_cut_alone(quick):
    """A table, a CSV file and a picture, no network; and the floors that a cut then keeps to."""
    done = quick.done("--sensitivity", "0.5", "0.25", "--strategy", "slim", "--score", "l1", evaluate=True)
    rows = done.report["rows"]
    assert not Path("out.cfg").exists() and Path("checkpoints/sensitivity_net.png").exists()
    assert [row["share"] for row in rows[:2]] == [0.25, 0.5] and done.report["pictures"] == 2
    assert next(row for row in rows if row["layer"] == 0)["layers"] == [0, 2, 5, 8]
    assert max(row["rise"] for row in rows) > 0.01 and "50% cut" in done.out and "0 and 3 more" in done.out
    with open("checkpoints/sensitivity_net.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["rise"]) for row in read] == [row["rise"] for row in rows]
    words = ("--target-macs", "0.6", "--strategy", "slim", "--score", "l1")
    free, bound = (quick.done(*words, *more) for more in ((), ("--max-layer-loss", "0.02")))
    assert kept(free.report) != kept(bound.report)
    quick.done("--sensitivity", "0.125", "0.25", "0.5", "0.75", "0.9", "--strategy", "slim", "--score", "l1")
    with open("checkpoints/sensitivity_net.csv", newline="") as file:
        tried = list(csv.DictReader(file))
    for row in tried:  # where a share cost too much, the layer keeps more than that leaves
        if float(row["rise"]) > 0.02:
            stays = kept(bound.report)[int(row["layer"])]
            assert stays > int(row["channels"]) - int(row["cut"]), row


def test_layers_alone_refuse_what_has_no_meaning(quick):
    quick.refuses("--sensitivity: ", "a score by name", "--sensitivity", "--score", "auto", evaluate=True)
    quick.refuses("--max-layer-loss: ", "one of them", "--max-layer-loss", "0.1", "--shortcuts", "1")
    quick.refuses("--sensitivity: ", "leave one of them out", "--sensitivity", "--percent", "0.5")
    text = Path("net.cfg").read_text()
    write(Path("net.cfg"), text[: text.index("[yolo]")] + "[region]\nanchors=1,1, 2,2\nclasses=2\nnum=2\n")
    line = quick.refuses("net.cfg", "whose loss is not known", "--sensitivity", evaluate=True)
    assert "[yolo] heads" in line


def test_folding_is_exact_where_nothing_can_choose(quick):
    done = quick.done("--percent", "0.4", "--fold", "auto")
    assert done.report["fold"] == "exact" and "nothing to choose by" in done.out


def test_an_input_is_not_taken_for_the_latency_table(bench):
    for name, flag in (("net.cfg", "--model_def"), ("net.weights", "--model"), ("two.data", "--data_config")):
        bench.refuses(
            "--latency_table: ", f"is what {flag} reads", "--target-latency", "0.5", "--latency_table", name
        )
    bench.refuses(
        "--latency_table: ",
        "is what --cfg_out names",
        "--target-latency",
        "0.5",
        "--latency_table",
        "out.cfg",
    )


def test_map_drop(quick):
    done = quick.done("--max-map-drop", "0.2", "--choose_on", "valid.txt", evaluate=True)
    report = done.report
    lines = re.findall(r"percent ([\d.]+): mAP50 ([\d.]+), at least ([\d.]+) wanted", done.out)
    tried = {float(percent): (float(found), float(wanted)) for percent, found, wanted in lines}
    least = report["map50_before"] - 0.2
    assert report["map50_before"] > 0.5 and report["map50_after"] >= least and 0 < report["percent"] < 1
    assert all(wanted == pytest.approx(least, abs=5e-5) for _, wanted in tried.values())
    assert tried[report["percent"]][0] == pytest.approx(report["map50_after"], abs=5e-5)
    assert tried[round(report["percent"] + 0.01, 2)][0] < least, "a hundredth more is too much"
    assert not [line for line in done.lines if "expect" in line], (
        "its mAP was measured: nothing is to be expected"
    )
    plan = prune_utils.plan(quick.original(), report["percent"])
    assert (
        report["cut"] == plan.cut
        and apart(quick.written(), prune_utils.masked(quick.original(), plan)) < 1e-5
    )


def test_what_chooses_is_not_what_judges(quick):
    """Without --choose_on, a part of `train` chooses, and says so; where the data name a test list beside it,
    `valid` does.
    """
    done = quick.done("--max-map-drop", "0.2", evaluate=True)
    assert (
        "chosen by:  mAP on 1 pictures drawn from train.txt by the seed, which this network was trained on"
        in done.out
    )
    write(
        quick.folder / "two.data",
        "classes=2\ntrain=train.txt\nvalid=valid.txt\ntest=train.txt\nnames=two.names\n",
    )
    done = quick.done("--max-map-drop", "0.2", evaluate=True)
    assert "chosen by:  mAP on the 3 pictures of valid.txt, since two.data names a test list too" in done.out
    line = quick.refuses("none.txt", "", "--max-map-drop", "0.2", "--choose_on", "none.txt", evaluate=True)
    assert "no such" in line


def test_map_drop_counts_what_blocks_cost(bench):
    flags = ("--max-map-drop", "0.01", "--shortcuts", "2", "--choose_on", "valid.txt")
    line = bench.refuses("--max-map-drop: mAP50 is below", "before any channel is cut", *flags, evaluate=True)
    assert "remove fewer blocks" in line
    bench.refuses("--max-map-drop: given with --no_eval", "a data set", "--max-map-drop", "0.1")


# ------------------------------------------------------------------------------------------------------------
# - the sweep

COLUMNS = ("percent", "map50_folded", "map50", "params", "macs", "bytes", "latency", "recommended")


def test_a_sweep_without_ratios(bench):
    before = snapshot(bench.folder)
    done = bench.done("--sweep", "--sweep_out", "seen/ratios", evaluate=True)
    after = snapshot(bench.folder)
    assert sorted(n for n in set(after) - set(before) if not n.endswith(".cache")) == [
        "report.json",
        "seen",
        "seen/ratios.csv",
        "seen/ratios.png",
    ], "no network is written"
    assert {name: after[name] for name in before} == before
    rows = done.report["rows"]
    assert [row["percent"] for row in rows] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert all(
        0 <= row["map50"] <= 1 and 0 <= row["map50_folded"] <= 1 and row["latency"] > 0 for row in rows
    )
    params = [done.report["before"]["params"], *(row["params"] for row in rows)]
    assert params == sorted(set(params), reverse=True)
    with open("seen/ratios.csv", newline="") as f:
        read = list(csv.DictReader(f))
    assert tuple(read[0]) == COLUMNS
    assert [[float(r[key]) for key in COLUMNS[:-1]] for r in read] == [
        [float(row[key]) for key in COLUMNS[:-1]] for row in rows
    ]
    with Image.open("seen/ratios.png") as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 300
    least = done.report["before"]["map50"] - done.report["allowed_drop"]
    good = [row for row in rows if row["map50"] >= least]
    wanted = min(good, key=lambda row: row["macs"])["percent"] if good else None
    assert done.report["recommended"] == wanted
    assert [float(r["percent"]) for r in read if r["recommended"] == "1"] == (
        [] if wanted is None else [wanted]
    )
    assert (
        "recommended: none of these ratios" if wanted is None else f"recommended: --percent {wanted:g} "
    ) in done.out


def test_a_sweep_of_some_ratios_without_a_data_set(bench):
    before = snapshot(bench.folder)
    done = bench.done("--sweep", "0.5", "0", "0.25", "--data_config", "absent.data")
    assert sorted(set(snapshot(bench.folder)) - set(before)) == [
        "checkpoints",
        "checkpoints/sweep_net.csv",
        "checkpoints/sweep_net.png",
        "report.json",
    ]
    assert [row["percent"] for row in done.report["rows"]] == [0, 0.25, 0.5] and done.report["rows"][0][
        "cut"
    ] == 0
    assert all(row["map50"] is None and row["map50_folded"] is None for row in done.report["rows"])
    for row in done.report["rows"]:
        plan = prune_utils.plan(bench.original(), row["percent"])
        assert row["cut"] == plan.cut
        assert row["params"] == profile.count(prune_utils.apply(bench.original(), plan).graph).params
    assert "no mAP was measured" in done.out and "mAP50" not in done.out
    assert ",,," in Path("checkpoints/sweep_net.csv").read_text().splitlines()[1]
    assert done.report["recommended"] == 0 and "recommended: --percent 0 (" in done.out, (
        "no gamma of this network is near zero"
    )


def test_a_sweep_says_what_it_left_out(bench):
    done = bench.done("--sweep", "0.3", "0.97", "0.99", "--layer_keep", "0.5")
    assert (
        len(done.report["rows"]) < 3
        and f"left out:   what is above {done.report['rows'][-1]['percent']:g}" in done.out
    )
    assert "left out" not in bench.done("--sweep", "0.3", "0.3").out


# ------------------------------------------------------------------------------------------------------ what
# becomes of it


def test_blocks_and_channels_together(bench):
    done = bench.done("--shortcuts", "2", "--strategy", "slim", "--percent", "0.3")
    model = bench.original()
    removal = remove(model, 2)
    gammas = {last: float(model.batch_norms()[last].weight.detach().abs().mean()) for last in (2, 5, 8)}
    weakest = sorted(gammas, key=gammas.get)[:2]
    assert [row["layers"] for row in done.report["blocks"]] == [[n - 1, n, n + 1] for n in weakest]
    assert [row["shortcut"] for row in done.report["blocks"]] == [n + 1 for n in weakest]
    gone = {layer for n in weakest for layer in (n - 1, n)}
    assert {row["layer"]: row["before"] for row in done.report["layers"]} == CONVOLUTIONS, (
        "numbers are the original's"
    )
    assert {layer for layer, after in kept(done.report).items() if after == 0} == gone
    compact = bench.written()
    assert [node.type for node in compact.graph.nodes].count("shortcut") == 1 and len(
        compact.graph.nodes
    ) == len(model.graph.nodes) - 6
    assert [after for layer, after in sorted(kept(done.report).items()) if after] == [
        node.shape[0] for node in compact.graph.nodes if node.type == "convolutional"
    ]
    plan = prune_utils.plan(removal.model, 0.3, "slim")
    assert apart(compact, prune_utils.masked(removal.model, plan)) < 1e-5
    for n in weakest:
        assert (
            f"residual block removed: layers {n - 1} to {n + 1}, mean |gamma| {gammas[n]:.4g} in layer {n}"
            in done.out
        )
    assert {row["layer"] for row in done.report["protected"]} == {12, 16}


def test_batch_norms_folded_in(bench):
    flags = ("--strategy", "slim", "--percent", "0.4", "--shortcuts", "1")
    plain = bench.done(*flags)
    assert (
        "batch_normalize=1" in Path("out.cfg").read_text()
        and "finetune:" in plain.out
        and not plain.report["fused"]
    )
    expected = bench.written()
    done = bench.done(*flags, "--fuse-bn")
    assert (
        "batch_normalize" not in Path("out.cfg").read_text()
        and done.report["fused"]
        and "finetune:" not in done.out
    )
    assert "batch norms folded in" in done.out and kept(done.report) == kept(plain.report)
    assert not bench.written().batch_norms() and apart(bench.written(), expected) < 1e-5
    assert done.report["params_after"] < plain.report["params_after"]


def test_recalibration(quick):
    flags = ("--strategy", "normal", "--percent", "0.5")
    plain = quick.done(*flags, evaluate=True)
    assert plain.report["map50_folded"] is None and plain.report["recalibrated"] == 0
    folded = quick.written()
    done = quick.done(*flags, "--recalibrate", "2", evaluate=True)
    assert done.report["recalibrated"] == 4 and done.report["map50_folded"] == plain.report["map50_after"]
    assert (
        f"batch norms re-estimated on 4 training pictures; mAP50 was {plain.report['map50_after']:.4f} before"
        in done.out
    )
    new = quick.written()
    pixels = np.stack([np.asarray(Image.open(f"images/{i}.png")) for i in range(4)])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255
    seen = torch.nn.functional.conv2d(x, new.convolutions()[0].weight.double(), stride=2, padding=1).mean(
        dim=(0, 2, 3)
    )
    assert torch.allclose(new.batch_norms()[0].running_mean.double(), seen, atol=1e-5), (
        "the mean of what the pictures give"
    )
    assert not torch.allclose(
        folded.batch_norms()[0].running_mean, new.batch_norms()[0].running_mean, atol=1e-2
    )
    for layer, convolution in new.convolutions().items():
        assert torch.equal(convolution.weight, folded.convolutions()[layer].weight)
    done = quick.done(*flags, "--recalibrate", "1")
    assert (
        done.report["map50_folded"] is None
        and done.report["recalibrated"] == 2
        and "mAP50 was" not in done.out
    )


def test_reconstruction(quick):
    flags = ("--strategy", "slim", "--percent", "0.5")
    plain = quick.done(*flags, evaluate=True)
    assert plain.report["reconstructed"] == 0 and plain.report["reconstruction"] == []
    folded = quick.written()
    done = quick.done(*flags, "--reconstruct", "2", evaluate=True)
    report = done.report
    assert report["reconstructed"] == 4 and report["recalibrated"] == 0
    assert report["map50_folded"] == plain.report["map50_after"]
    assert all(fit["after"] <= fit["before"] for fit in report["reconstruction"])
    assert any(fit["after"] < 0.5 * fit["before"] for fit in report["reconstruction"])
    solved = [fit["layer"] for fit in report["reconstruction"]]
    assert f"{len(solved)} convolutions solved again on 4 training pictures" in done.out
    assert not any("never trained" in line for line in done.lines)
    new = quick.written()
    for layer, convolution in new.convolutions().items():
        same = torch.equal(convolution.weight, folded.convolutions()[layer].weight)
        assert same or layer in solved
    assert not all(
        torch.equal(c.weight, folded.convolutions()[n].weight) for n, c in new.convolutions().items()
    )
    quick.refuses("--reconstruct", "given with --recalibrate", "--reconstruct", "1", "--recalibrate", "1")


def test_the_best_of_several_scores(quick):
    done = quick.done("--score", "auto", "--target-macs", "0.5", "--strategy", "slim", evaluate=True)
    rows = done.report["scores"]
    assert [row["score"] for row in rows] == ["repair", "gamma", "l1", "depgraph", "taylor"]
    assert done.report["score"] == max(rows, key=lambda row: row["map50"])["score"]
    assert all(row["behind"] in (0.5, 1.0) for row in rows), "of one picture all draws are alike"
    assert done.report["reconstructed"] == 2, "of four pictures one chooses, and batches are of two"
    taken = next(row for row in rows if row["score"] == done.report["score"])
    assert taken["macs"] == done.report["macs_after"]
    assert "taken" in done.out and "chosen by:" in done.out
    dropped = quick.done("--score", "auto", "--max-map-drop", "1", "--recalibrate", "1", evaluate=True)
    assert dropped.report["recalibrated"] == 2 and dropped.report["reconstructed"] == 0
    assert dropped.report["macs_after"] == min(row["macs"] for row in dropped.report["scores"])
    quick.refuses("--score", "auto, given with --no_eval", "--score", "auto", "--percent", "0.5")
    quick.refuses("--score", "auto, given with --sweep", "--score", "auto", "--sweep", "0.5", evaluate=True)


def test_what_is_best_by_chance_is_not_preferred(quick, monkeypatch):
    """Of a hundred pictures, l1 finds one more than repair, and gamma misses half."""
    module = importlib.import_module("darkslim.pipelines.prune_scores")
    whole, half = np.arange(100), np.arange(50)

    def hits(right: np.ndarray, found: int) -> Hits:
        images = np.arange(100)
        flags = np.isin(images, right[:found])
        return Hits(images, np.full(100, 0.9), np.zeros(100), flags, images, np.zeros(100), 100)

    found = {"repair": hits(whole, 97), "gamma": hits(half, 50), "l1": hits(whole, 98)}
    order = iter(found)
    result = dataclasses.make_dataclass("Result", ["map50", "hits"])
    monkeypatch.setattr(module, "TRIED", tuple(found))
    monkeypatch.setattr(
        "darkslim.pipelines.pictures.Pictures.looked_at",
        lambda self, model: result(float((h := found[next(order)]).right.mean()), h),
    )
    done = quick.done("--score", "auto", "--target-macs", "0.5", "--strategy", "slim", evaluate=True)
    behind = {row["score"]: row["behind"] for row in done.report["scores"]}
    assert done.report["score"] == "repair"
    assert behind["l1"] == 0.5 < behind["repair"] < 0.9 < behind["gamma"]


def test_reconstruction_in_a_sweep_and_for_a_drop(quick):
    swept = quick.done("--sweep", "0.3", "0.6", "--reconstruct", "1", evaluate=True)
    assert swept.report["reconstruct"] == 1 and swept.report["recalibrate"] == 0
    assert all(row["map50_folded"] is not None for row in swept.report["rows"])
    done = quick.done("--max-map-drop", "1", "--reconstruct", "1", "--shortcuts", "1", evaluate=True)
    assert done.report["reconstructed"] == 2 and done.report["cut"] > 0


@pytest.mark.parametrize("fold", ["exact", "interior", "none"])
def test_each_way_of_folding(fold, quick):
    report = quick.done("--fold", fold, "--strategy", "slim", "--percent", "0.5").report
    differences = report["fold_differences"]
    assert report["fold"] == fold and list(differences) == ["exact", "interior", "none"]
    assert differences["exact"] < 1e-5 < differences["interior"] and 1e-5 < differences["none"]
    assert differences[fold] == pytest.approx(report["max_rel_diff"], rel=1e-9)
    assert report["proof_error"] < 1e-5 and (sum(row["carriers"] for row in report["layers"]) > 0) == (
        fold == "exact"
    )
    plan = prune_utils.plan(quick.original(), 0.5, "slim", fold=fold)
    assert apart(quick.written(), prune_utils.apply(quick.original(), plan, fold)) == 0


# ------------------------------------------------------------------------------------------------------------
# - refused

HOW_MUCH = (
    ("--percent", "0.5"),
    ("--target-params", "0.5"),
    ("--target-macs", "0.5"),
    ("--target-latency", "0.5"),
    ("--max-map-drop", "0.1"),
    ("--sweep", "0.5"),
)


@pytest.mark.parametrize("one, other", list(itertools.combinations(HOW_MUCH, 2)), ids=lambda v: v[0])
def test_ways_to_say_how_much_exclude_each_other(one, other, bench):
    bench.refuses("--", "leave one of them out", *one, *other)


@pytest.mark.parametrize("flag", ["--target-params", "--target-macs", "--target-latency"])
@pytest.mark.parametrize(
    "value", ["0", "-0.5", "-5M", "nan", "inf", "-inf", "2X", "", "M", "half", "1e400", "0k", "50%"]
)
def test_quantities_that_are_none(flag, value, bench):
    bench.refuses(f"argument {flag}: ", value, f"{flag}={value}")


def test_a_quantity_that_its_unit_makes_endless(bench):
    bench.refuses("", "inf", "--target-macs", "1e308G")


@pytest.mark.parametrize(
    "flags, where, words",
    [
        (("--max-map-drop", "-0.1"), "argument --max-map-drop: ", "-0.1 is outside 0 to 1"),
        (("--max-map-drop", "nan"), "argument --max-map-drop: ", "nan is outside 0 to 1"),
        (("--sweep", "0.5", "1.5"), "argument --sweep: ", "1.5 is outside 0 to 1"),
        (("--sweep", "nan"), "argument --sweep: ", "nan"),
        (("--shortcuts", "-1"), "argument --shortcuts: ", "-1 is outside"),
        (("--shortcuts", "0.5"), "argument --shortcuts: ", "no whole number"),
        (("--shortcuts", "4"), "shortcuts: 4 residual blocks to remove", "at most 3"),
        (("--sweep", "0.5", "--shortcuts", "4"), "shortcuts: 4 residual blocks", "at most 3"),
        (("--recalibrate", "-1"), "argument --recalibrate: ", "-1 is outside"),
        (("--recalibrate", "2", "--data_config", "absent.data"), "absent.data", ""),
        (("--score", "gamma-min"), "argument --score: ", "gamma-min"),
        (("--score", "l3"), "argument --score: ", "l3"),
        (("--strategy", "best"), "argument --strategy: ", "best"),
        (("--fold", "some"), "argument --fold: ", "some"),
        (("--sweep", "--sweep_out", "/"), "--sweep_out: / is a folder", ""),
        (("--sweep", "--sweep_out", "."), "--sweep_out: . is a folder", ""),
        (("--sweep", "--sweep_out", "images/.."), "--sweep_out: images/.. is a folder", ""),
        (("--sweep", "--sweep_out", "net.cfg/x"), "net.cfg/x.csv: ", "is no folder"),
        (("--target-latency", "0.5", "--latency_table", "images"), "images: is a folder", ""),
    ],
)
def test_values_that_are_wrong(flags, where, words, bench):
    bench.refuses(where, words, *flags)


def test_a_sweep_does_not_write_over_an_input(bench):
    for name in ("net.csv", "net.png"):
        (bench.folder / "net.weights").rename(bench.folder / name)
        bench.refuses(
            f"--sweep_out (.{name[4:]}): {name} is what --model reads",
            "",
            "--sweep",
            "--sweep_out",
            "net",
            "--model",
            name,
        )
        (bench.folder / name).rename(bench.folder / "net.weights")
    bench.refuses(
        "--json: x.csv is what --sweep_out (.csv) names", "", "--sweep", "--sweep_out", "x", "--json", "x.csv"
    )


@pytest.mark.parametrize(
    "flags",
    [
        ("--sweep", "--sweep_out", "locked/x"),
        ("--cfg_out", "locked/x.cfg"),
        ("--model_out", "locked/new/x.pth"),
        ("--target-latency", "0.5", "--latency_table", "locked/t.json"),
    ],
    ids=lambda f: f[-2],
)
def test_places_that_are_read_only(flags, bench, monkeypatch):
    locked(bench.folder / "locked", monkeypatch)
    assert "read-only; choose another folder" in bench.refuses("locked/", "cannot be written", *flags)


def test_a_proof_that_fails_after_blocks_and_recalibration(bench, monkeypatch):
    monkeypatch.setattr("darkslim.pruning.cut.fuse", lambda model: bench.original())
    before = snapshot(bench.folder)
    done = bench.prune("--fuse-bn", "--recalibrate", "1", "--percent", "0.5")
    assert done.code == 3 and done.lines[-1].startswith("error: ") and "nothing was written" in done.lines[-1]
    assert snapshot(bench.folder) == before


def test_as_a_process(bench):
    common = ["--model_def", "net.cfg", "--model", "net.weights", "--no_eval", "--device", "cpu"]
    done = spawn("test_prune", [*common, "--target-macs", "0.4", "--percent", "0.3"], bench.folder)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


def test_help_shows_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as e:
        load("test_prune").parser().parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert e.value.code == 0
    for flag in (
        "--target-params R",
        "--target-macs R",
        "--target-latency R",
        "--max-map-drop D",
        "--sweep [RATIO",
        "--shortcuts N",
        "--fuse-bn",
        "--strategy {normal,shortcut,slim,group}",
        "--fold {exact,interior,none,auto}",
        "--recalibrate N",
        "--score NAME",
    ):
        assert flag in text
    assert "(default: normal)" in text and "(default: exact)" in text and "none: 0.85" in text
