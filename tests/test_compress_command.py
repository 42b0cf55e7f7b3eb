"""compress.py: what goes in comes out, the other commands read it, and wrong requests change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, check, perform, picture, snapshot, tiny_model, write
from test_slim_command import CFG

from darkslim.network.darknet import Darknet
from darkslim.network.packed import Packed
from darkslim.network.weights import load_model, save_weights, weights_bytes
from darkslim.pipelines.compress_settings import bits


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.cfg", CFG)
    save_weights(tiny_model(CFG), "net.weights")
    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png")
        write(tmp_path / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.25 0.25\n")
    write(tmp_path / "list.txt", "".join(f"images/{i}.png\n" for i in range(4)))
    write(tmp_path / "two.data", "classes=2\ntrain=list.txt\nvalid=list.txt\n")


@pytest.fixture
def run(bench, capfd):
    def go(*words):
        code, said = perform(capfd, "compress", [str(w) for w in words])
        return code, said.err.splitlines(), said.out

    return go


NET = ("--model_def", "net.cfg", "--weights", "net.weights", "--data_config", "two.data", "--device", "cpu")


def test_pack_info_unpack(run):
    code, err, out = run("pack", *NET, "--n_cpu", 0, "--json", "pack.json", "--figure", "bytes.png")
    assert code == 0 and not err, err
    said = json.loads(Path("pack.json").read_text())
    assert said["file"] == "net.packed" and said["bytes_after"] == Path("net.packed").stat().st_size
    assert [s["name"] for s in said["stages"]] == ["float32", "zeros left out", "values shared", "coded"]
    assert (
        said["bytes_before"] == Path("net.weights").stat().st_size and said["run"]["command"] == "compress.py"
    )
    assert said["entropy"] <= said["bytes_after"] and 0 <= said["map50_after"] <= 1
    assert "read back and equal bit by bit" in out and "time does not change" in out
    assert Path("bytes.png").read_bytes()[:4] == b"\x89PNG"
    code, err, out = run("info", "--file", "net.packed", "--json", "info.json")
    told = json.loads(Path("info.json").read_text())
    assert code == 0 and told["stages"] == said["stages"] and told["layers"] == said["layers"]
    assert told["entropy"] == pytest.approx(said["entropy"]) and "32x32, 2 classes" in out
    code, err, out = run("unpack", "--file", "net.packed", "--out", "again/net")
    assert code == 0 and not err
    assert Path("again/net.cfg").read_text() == Path("net.cfg").read_text()
    one, two = (load_model("again/net.cfg", f"again/net.{end}") for end in ("weights", "pth"))
    assert weights_bytes(one) == weights_bytes(two) == weights_bytes(load_model("net.cfg", "net.packed"))
    for conv in one.convolutions().values():
        assert len(conv.weight.unique()) <= 32
    before, after = load_model("net.cfg", "net.weights"), one
    for a, b in zip(before.batch_norms().values(), after.batch_norms().values(), strict=True):
        assert torch.equal(a.running_mean, b.running_mean) and torch.equal(a.bias, b.bias)


def test_every_command_reads_a_packed_file(run, capfd):
    assert run("pack", *NET, "--no_eval")[0] == 0
    common = ["--model_def", "net.cfg", "--data_config", "two.data", "--n_cpu", "0", "--device", "cpu"]
    for name, flag in (("test", "--weights_path"), ("test_prune", "--model"), ("train", "-pre")):
        more = ["--epochs", "1", "--batch_size", "2", "--checkpoint", "t.pth"] if name == "train" else []
        more += ["--percent", "0.3"] if name == "test_prune" else []
        code, said = perform(capfd, name, [*common, flag, "net.packed", *more])
        assert code == 0, said.err
    assert "start: net.packed" in said.out


@pytest.mark.parametrize("coder", ["ans", "huffman"])
def test_bits_of_kinds_of_layers(run, coder):
    assert run("pack", *NET, "--no_eval", "--bits", "conv=2,head=7", "--coder", coder)[0] == 0
    found = {s.layer: s for s in Packed("net.packed").stored if s.name == "kernels"}
    assert all(found[layer].values <= 4 and found[layer].coder == coder for layer in (0, 1, 2))
    assert 4 < found[3].values <= 128
    assert bits("6") == {"conv": 6, "depthwise": 6, "head": 6}
    assert bits("head=8") == {"conv": 5, "depthwise": 5, "head": 8}


def test_batch_norms_folded_first(run):
    assert run("pack", *NET, "--no_eval", "--fuse-bn")[0] == 0
    packed = Packed("net.packed")
    assert not Darknet(packed.cfg).batch_norms() and "batch_normalize" not in packed.cfg.text
    code, err, _ = run("unpack", "--file", "net.packed", "--out", "fused")
    assert code == 0
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        whole, small = load_model("net.cfg", "net.weights")(x), load_model("fused.cfg", "fused.weights")(x)
    assert whole.shape == small.shape and np.isfinite(small.numpy()).all()


@pytest.mark.parametrize(
    "words, where, text",
    [
        (["pack", *NET, "--bits", "9"], "argument --bits", "outside 1 to 8"),
        (["pack", *NET, "--bits", "conv=x"], "argument --bits", "conv=BITS"),
        (["pack", *NET, "--out", "net.weights"], "--out", "another kind of file"),
        (["pack", *NET, "--figure", "images/0.png"], "--figure", "another file"),
        (["unpack", "--file", "net.weights"], "net.weights", "no packed network"),
        (["unpack", "--file", "none.packed"], "none.packed", "no such"),
        (["info", "--file", "images"], "images", "a folder"),
        (["pack", *NET, "--json", "net.cfg"], "--json", "another"),
        ([], "the following arguments are required: JOB", ""),
    ],
)
def test_requests_that_are_refused(run, words, where, text):
    before = snapshot(Path("."))
    code, err, _ = run(*words)
    if where.startswith(("argument", "the following")):
        assert code == 2 and err == [line for line in err if line.startswith("error: ")] and where in err[0]
        assert text in err[0]
    else:
        check(code, err, where, text)
    assert snapshot(Path(".")) == before


def test_unpack_gives_earlier_files_a_number(run):
    assert run("pack", *NET, "--no_eval")[0] == 0
    assert run("unpack", "--file", "net.packed", "--out", "b")[0] == 0
    assert run("pack", *NET, "--no_eval", "--bits", 3)[0] == 0
    code, _, out = run("unpack", "--file", "net.packed", "--out", "b")
    assert code == 0 and Path("b.1.weights").exists() and "is now b.1.weights" in out
    assert (ROOT / "compress.py").exists()


def zeros_of(path: str) -> dict[int, float]:
    model = load_model("net.cfg", path)
    return {layer: float((conv.weight == 0).float().mean()) for layer, conv in model.convolutions().items()}


def test_sparsify_at_once(run):
    code, err, out = run("sparsify", *NET, "--n_cpu", 0, "--json", "a.json", "--ratio", 0.5)
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert said["checkpoint"] == "net_sparsified.pth" and said["zeros"] == pytest.approx(0.5, abs=0.01)
    assert zeros_of("net_sparsified.pth") == zeros_of("net_sparsified.weights")
    assert all(share == pytest.approx(0.5, abs=0.03) for share in zeros_of("net_sparsified.pth").values())
    assert set(said["before"]) == {"images", "boxes", "precision", "recall", "map50", "map", "seconds"}
    assert "do not change" in out and "truths" in out and said["bytes_after"] < said["bytes_before"]
    code, err, out = run("sparsify", *NET, "--no_eval", "--ratio", 0.5, "--scope", "global")
    assert code == 0 and "net_sparsified.1.pth" in out, "the earlier files have a number"
    shares = zeros_of("net_sparsified.pth")
    assert max(shares.values()) - min(shares.values()) > 0.05, "layers differ"
    assert run("sparsify", *NET, "--no_eval", "--pattern", "2:4", "--out", "p.pth")[0] == 0
    assert zeros_of("p.pth")[1] == 0.5, "of eight inputs four"


def test_sparsify_and_reconstruct(run):
    flags = ("--ratio", 0.7, "--reconstruct", 2, "--batch_size", 2, "--n_cpu", 0, "--json", "a.json")
    code, err, _ = run("sparsify", *NET, *flags)
    assert code == 0 and not err, err
    fits = json.loads(Path("a.json").read_text())["reconstruction"]
    assert len(fits) == 4 and all(f["after"] <= f["before"] for f in fits)
    assert said_zeros("a.json") == pytest.approx(0.7, abs=0.01), "of the whole network, by error"
    by_size = (*flags, "--score", "size", "--out", "s.pth")
    assert run("sparsify", *NET, *by_size)[0] == 0
    assert all(share >= 0.69 for share in zeros_of("s.pth").values()), "of each layer, by size"
    pattern = ("--pattern", "2:4", "--reconstruct", 2, "--batch_size", 2, "--n_cpu", 0, "--no_eval")
    assert run("sparsify", *NET, *pattern, "--out", "p.pth")[0] == 0
    assert zeros_of("p.pth")[1] == 0.5


def test_sparsify_reconstruct_and_train(run):
    flags = (*NET, *TRAINS, "--ratio", 0.6, "--reconstruct", 2, "--out", "s.pth")
    code, err, out = run("sparsify", *flags)
    assert code == 0, err
    said = json.loads(Path("a.json").read_text())
    assert (
        f"mAP50 {said['map50_solved']:.4f}, before the training" in out
        and len(said["history"]) == 2
        and len(said["reconstruction"]) == 4
    )
    assert "of the cfg's" in out, "what was solved has something to lose"
    assert (
        said["zeros"] == pytest.approx(0.6, abs=0.01) and said["history"][0]["zeros"] >= said["zeros"] - 1e-3
    )
    solved, after = load_model("net.cfg", "s_solved.pth"), load_model("net.cfg", "s.pth")
    for layer, conv in solved.convolutions().items():
        trained = after.convolutions()[layer].weight
        assert ((trained == 0) == (conv.weight == 0)).all() and not torch.equal(trained, conv.weight)
    kept = weights_bytes(after)
    code, err, _ = run("sparsify", *flags, "--resume")
    assert code == 0 and weights_bytes(load_model("net.cfg", "s.pth")) == kept, "it had ended"
    assert run("sparsify", *flags, "--out", "t.pth", "--resume")[0] == 0, "what had not begun, begins"
    assert run("sparsify", *flags, "--seed", 1)[0] == 0
    assert weights_bytes(load_model("net.cfg", "s.1.pth")) == kept and Path("s_solved.1.pth").exists()


def said_zeros(path: str) -> float:
    return json.loads(Path(path).read_text())["zeros"]


TRAINS = ("--epochs", 2, "--batch_size", 2, "--n_cpu", 0, "--amp", "off", "--logdir", "l", "--json", "a.json")


def test_sparsify_while_it_trains(run):
    code, err, out = run("sparsify", *NET, *TRAINS, "--ratio", 0.6)
    assert code == 0, err
    said = json.loads(Path("a.json").read_text())
    assert said["zeros"] == pytest.approx(0.6, abs=0.02) and said["history"][-1]["zeros"] > 0.58
    assert zeros_of("net_sparsified.pth") == zeros_of("net_sparsified.weights") and "zeros" in out
    assert Path("net_sparsified.last.pth").exists()


def test_surgery(run):
    code, err, out = run("surgery", *NET, *TRAINS, "--ratio", 0.6)
    assert code == 0, err
    said = json.loads(Path("a.json").read_text())
    assert 0.3 < said["zeros"] < 0.8 and said["checkpoint"] == "net_surgery.pth"
    assert set(said["history"][-1]) >= {"zeros", "returned", "again"} and "returned" in out
    again = run(
        "pack", "--weights", "net_surgery.pth", *NET[:2], "--no_eval", "--bits", 4, "--json", "b.json"
    )
    assert again[0] == 0
    packed = json.loads(Path("b.json").read_text())
    assert packed["zeros"] == pytest.approx(said["zeros"], abs=1e-6), "zeros stay zeros"


def test_surgery_of_solved_weights(run):
    flags = (*NET, *TRAINS, "--ratio", 0.6, "--reconstruct", 2, "--out", "s.pth")
    code, err, out = run("surgery", *flags)
    assert code == 0, err
    said = json.loads(Path("a.json").read_text())
    assert (
        f"mAP50 {said['map50_solved']:.4f}, before the training" in out and len(said["reconstruction"]) == 4
    )
    assert said["history"][0]["zeros"] > 0.4
    solved, after = load_model("net.cfg", "s_solved.pth"), load_model("net.cfg", "s.pth")
    zeros = sum(int((conv.weight == 0).sum()) for conv in solved.convolutions().values())
    weights = sum(conv.weight.numel() for conv in solved.convolutions().values())
    assert zeros == int(0.6 * weights)
    kept = weights_bytes(after)
    code, err, _ = run("surgery", *flags, "--resume")
    assert code == 0 and weights_bytes(load_model("net.cfg", "s.pth")) == kept, "it had ended"


@pytest.mark.parametrize(
    "words, where, text",
    [
        (["sparsify", *NET, "--ratio", "1.5"], "argument --ratio", "outside 0 to 1"),
        (["sparsify", *NET, "--score", "error"], "--score", "--reconstruct N"),
        (["surgery", *NET, "--out", "images/0.png"], "--out", "ends in .pth"),
        (["surgery", *NET, "--out", "net.weights"], "--out", "another file"),
    ],
)
def test_thinning_that_is_refused(run, words, where, text):
    before = snapshot(Path("."))
    code, err, _ = run(*words)
    assert code == 2 and len(err) == 1 and where in err[0] and text in err[0], err
    assert snapshot(Path(".")) == before


def test_shared_values_are_chosen_again(run):
    flags = ("--bits", 2, "--reconstruct", 2, "--batch_size", 2, "--n_cpu", 0, "--json", "a.json")
    code, err, out = run("pack", *NET, *flags)
    assert code == 0 and not err, err
    said = json.loads(Path("a.json").read_text())
    assert len(said["reconstruction"]) == 4 and all(f["after"] <= f["before"] for f in said["reconstruction"])
    assert said["map50_shared"] is not None and f"{said['map50_shared']:.4f} with values shared" in out
    model, plain = load_model("net.cfg", "net.packed"), load_model("net.cfg", "net.weights")
    assert all(len(conv.weight.unique()) <= 4 for conv in model.convolutions().values())
    for layer, norm in model.batch_norms().items():
        assert torch.equal(norm.weight, plain.batch_norms()[layer].weight), "only means move"
    again = ("--reconstruct", 1, "--batch_size", 2, "--fuse-bn", "--no_eval", "--out", "b.packed")
    assert run("pack", *NET, *again, "--n_cpu", 0)[0] == 0
    code, err, _ = run("pack", *NET, "--reconstruct", 1, "--no_eval", "--out", "list.txt")
    assert code == 2 and len(err) == 1 and "--out" in err[0], "what is read is not written over"
    code, err, _ = run("pack", *NET, *TRAINS, "--reconstruct", 1)
    check(code, err, "--reconstruct", "given with --epochs")


def test_shared_values_are_trained(run):
    code, err, _ = run("pack", *NET, *TRAINS, "--bits", 2)
    assert code == 0, err
    said = json.loads(Path("a.json").read_text())
    assert said["map50_shared"] is not None and len(said["history"]) == 2
    model = load_model("net.cfg", "net.packed")
    assert weights_bytes(model) == weights_bytes(load_model("net.cfg", "net_shared.pth"))
    assert all(len(conv.weight.unique()) <= 4 for conv in model.convolutions().values())
    at_once = load_model("net.cfg", "net.weights")
    assert weights_bytes(at_once) != weights_bytes(model)
    code, err, _ = run("pack", *NET, *TRAINS, "--fuse-bn")
    check(code, err, "--fuse-bn", "given with --epochs")
