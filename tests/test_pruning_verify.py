"""The proof finds faults, and what fails it is not written."""

from __future__ import annotations

import pytest
import torch
from random_cfgs import random_network

from darkslim.base import files
from darkslim.base.errors import FileError, ProofError
from darkslim.network import weights
from darkslim.network.cfg import read_cfg
from darkslim.network.twins import twin
from darkslim.network.weights import load_model
from darkslim.pruning import surgery
from darkslim.pruning.parts import batch_norm
from darkslim.pruning.plan import plan
from darkslim.pruning.verify import TOLERANCE, proof_size, prove, prove_files, save_proven


@pytest.fixture(scope="module")
def cut():
    model = random_network(4)
    p = plan(model, percent=0.5)
    return model, p, surgery.apply(model, p)


def test_a_sound_cut_passes(cut):
    model, p, compact = cut
    proof = prove(model, p, compact)
    assert proof.relative == proof.error < 1e-6 < TOLERANCE and proof.images == 2
    assert prove(model, p, compact, seed=1).max_abs_diff != proof.max_abs_diff


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean"])
def test_a_small_fault_is_found(cut, name):
    model, p, compact = cut
    wrong = twin(compact)
    layer = next(layer for layer, kept in p.keep.items() if not kept.all())
    with torch.no_grad():
        alive = int(batch_norm(wrong, layer).weight.abs().argmax())
        getattr(batch_norm(wrong, layer), name)[alive] += 0.01
    with pytest.raises(ProofError, match="differs from the masked one"):
        prove(model, p, wrong)


def test_a_missing_carrier_is_found(cut, monkeypatch):
    model, p, _ = cut
    monkeypatch.setattr(surgery, "_set_carriers", lambda *a: None)
    with pytest.raises(ProofError):
        prove(model, p, surgery.apply(model, p))


def test_numbers_that_are_none_do_not_pass(cut):
    model, p, compact = cut
    wrong = twin(compact)
    list(wrong.convolutions().values())[-1].bias.data[0] = float("nan")
    with pytest.raises(ProofError):
        prove(model, p, wrong)


def test_the_promise_of_one_folding_is_not_that_of_another(cut):
    model, p, _ = cut
    with pytest.raises(ProofError):
        prove(model, p, surgery.apply(model, p, "interior"), "none")


def test_proof_size_has_borders_and_an_interior():
    graph = random_network(4).graph
    height, width = proof_size(graph)
    assert height % graph.stride == 0 and width % graph.stride == 0 and height <= graph.input_shape[1]


def test_files_are_written_and_come_back(cut, tmp_path):
    _, _, compact = cut
    paths = [tmp_path / "a" / name for name in ("x.cfg", "x.pth", "x.weights")]
    save_proven(compact, *paths, extra={"percent": 0.5}, more=[files.Save(tmp_path / "a" / "note", "text")])
    x = torch.rand(1, *compact.graph.input_shape)
    for path in paths[1:]:
        with torch.inference_mode():
            assert torch.equal(load_model(paths[0], path)(x), compact(x))
    assert read_cfg(paths[0]).to_bytes() == compact.cfg.to_bytes()
    header = weights.read_header(paths[2])
    assert (header.version, header.seen) == ((0, 2, 5), 0)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == ["note", "x.cfg", "x.pth", "x.weights"]


@pytest.mark.parametrize("fault", ["one value", "short", "picture"])
def test_a_fault_on_the_disk_leaves_everything_as_it_was(cut, tmp_path, monkeypatch, fault):
    _, _, compact = cut
    paths = [tmp_path / name for name in ("x.cfg", "x.pth", "x.weights")]
    paths[0].write_text("the old one")
    real, more = weights.weights_bytes, []

    def wrong(model, seen=0):
        data = bytearray(real(model, seen))
        if fault == "one value":
            data[-2] ^= 0x40  # an exponent bit of the last kernel
        return bytes(data[:-8] if fault == "short" else data)

    def broken(path):
        raise OSError(28, "No space left on device")

    if fault == "picture":
        more = [files.Save(tmp_path / "x.png", broken)]
    else:
        monkeypatch.setattr(weights, "weights_bytes", wrong)
    with pytest.raises(FileError if fault == "picture" else ProofError):
        save_proven(compact, *paths, more=more)
    assert [f.name for f in tmp_path.iterdir()] == ["x.cfg"] and paths[0].read_text() == "the old one"


def test_weights_that_are_no_numbers_are_not_written(cut, tmp_path):
    wrong = twin(cut[2])
    list(wrong.convolutions().values())[0].weight.data[0] = float("inf")
    with pytest.raises(ProofError, match="not finite"):
        save_proven(wrong, tmp_path / "x.cfg", tmp_path / "x.pth", tmp_path / "x.weights")
    assert not list(tmp_path.iterdir())


def test_files_of_another_network_are_found(cut, tmp_path):
    _, _, compact = cut
    other = twin(compact)
    list(other.convolutions().values())[0].weight.data += 1e-3
    paths = [tmp_path / name for name in ("x.cfg", "x.pth", "x.weights")]
    save_proven(other, *paths)
    with pytest.raises(ProofError, match="gives other outputs"):
        prove_files(compact, *paths)
