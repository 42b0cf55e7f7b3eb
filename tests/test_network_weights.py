"""Weights on disk: every byte accounted for, nothing executed."""

import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from test_network_darknet import CFG

from darkslim.base.errors import CheckpointError, DarkslimError, WeightsError
from darkslim.network import checkpoints, weights
from darkslim.network.cfg import parse_cfg
from darkslim.network.darknet import Darknet


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = Darknet(parse_cfg(CFG, "net.cfg"))
    for bn in net.batch_norms().values():
        bn.running_var.uniform_(0.5, 2)
        bn.running_mean.normal_()
    return net


@pytest.fixture
def file(model, tmp_path):
    path = tmp_path / "net.weights"
    weights.save_weights(model, path)
    return path


def same(a, b):
    return all(
        torch.equal(x, y)
        for (k, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True)
        if "batches" not in k
    )


def test_golden_weights_come_back_byte_for_byte(golden, tmp_path):
    for path in sorted(golden.glob("*/net.weights")):
        m = weights.load_model(path.with_name("net.cfg"), path)
        weights.save_weights(m, tmp_path / "out.weights", m.seen)
        assert (tmp_path / "out.weights").read_bytes() == path.read_bytes(), path.parent.name


def test_the_layout_by_hand(model, file):
    data = file.read_bytes()
    assert struct.unpack("<3iq", data[:20]) == (0, 2, 5, 0)
    floats = np.frombuffer(data[20:], "<f4")
    bn, conv = model.batch_norms()[0], model.convolutions()
    order = [
        bn.bias,
        bn.weight,
        bn.running_mean,
        bn.running_var,
        conv[0].weight,
        conv[1].bias,
        conv[1].weight,
        conv[4].bias,
        conv[4].weight,
    ]
    assert np.array_equal(floats, np.concatenate([t.detach().numpy().ravel() for t in order]))
    assert len(data) == weights.model_bytes(model)


def test_both_header_kinds(model, file):
    body = file.read_bytes()[20:]
    file.write_bytes(struct.pack("<4i", 0, 1, 0, 7) + body)
    other = Darknet(model.cfg)
    weights.load_weights(other, file)
    assert same(other, model) and other.seen == 7


def test_a_zero_header_with_a_wide_seen_is_read_with_a_warning(model, file):
    file.write_bytes(struct.pack("<3iq", 0, 0, 0, 0) + file.read_bytes()[20:])
    other = Darknet(model.cfg)
    with pytest.warns(UserWarning, match="64 bits"):
        weights.load_weights(other, file)
    assert same(other, model)


@pytest.mark.parametrize(
    "keep, message",
    [
        (0, "0 bytes"),
        (7, "7 bytes"),
        (18, "18 bytes"),
        (-1, "the data ends in layer 4"),
        (-4, "the data ends in layer 4"),
    ],
)
def test_short_files(model, file, keep, message):
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        weights.load_weights(model, file)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_long_files_and_other_networks(model, file):
    file.write_bytes(file.read_bytes() + b"1234")
    with pytest.raises(WeightsError, match="4 bytes are left over"):
        weights.load_weights(model, file)
    small = Darknet(parse_cfg(CFG.replace("filters=8", "filters=6")))
    with pytest.raises(WeightsError, match=r"is 1,\d\d\d bytes long; 1,\d\d\d bytes for"):
        weights.load_weights(small, file)


def test_a_backbone_needs_a_cutoff_and_the_message_offers_it(model, file):
    end = weights.layer_ends(model)[0]
    file.write_bytes(file.read_bytes()[: 20 + 4 * end])
    with pytest.raises(WeightsError, match="exactly behind layer 0: a backbone file loads with cutoff=1"):
        weights.load_weights(model, file)
    assert weights.matching_cutoff(model, file) == 1
    other = Darknet(model.cfg)
    weights.load_weights(other, file, cutoff=1)
    assert torch.equal(other.convolutions()[0].weight, model.convolutions()[0].weight)
    assert not torch.equal(other.convolutions()[1].weight, model.convolutions()[1].weight)


def test_values_that_are_no_weights_name_their_layer(model, file):
    model.convolutions()[1].weight.data[3, 2] = float("nan")
    with pytest.raises(WeightsError, match="layer 1: kernels"):
        weights.save_weights(model, file)
    data = bytearray(file.read_bytes())
    data[20 + 4 * 24 : 24 + 4 * 24] = struct.pack("<f", -1.0)
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="layer 0: a running variance is -1"):
        weights.load_weights(model, file)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (struct.pack("<3i", 5000, 0, 0) + b"\0" * 40, "version 5000.0.0"),
    ],
)
def test_other_files_in_disguise(model, tmp_path, content, message):
    path = tmp_path / "net.weights"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        weights.load_weights(model, path)


def test_no_regular_file(model, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "fifo", "is a FIFO"),
        ("/dev/zero", "is a device"),
        (tmp_path / "none", "no such weights file"),
    ):
        with pytest.raises(DarkslimError, match=message):
            weights.load_weights(model, path)


# --- .pth ---


def test_checkpoints_come_back_whole(model, tmp_path):
    path = tmp_path / "net.pth"
    model.seen = 64
    checkpoints.save_checkpoint(path, model, {"epoch": 3})
    other = Darknet(model.cfg)
    data = checkpoints.load_checkpoint(path, other)
    assert same(other, model) and other.seen == 64
    assert data["extra"] == {"epoch": 3} and data["cfg_hash"] == model.cfg.hash and data["cfg"] == CFG


def test_a_pth_under_another_name_loads_by_content(model, tmp_path):
    path = tmp_path / "net.weights"
    checkpoints.save_checkpoint(path, model)
    assert same(weights.load_model(model.cfg, path), model)


def test_old_state_dicts_load_by_their_keys(model, tmp_path):
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "a.pth")
    other = Darknet(model.cfg)
    with pytest.warns(UserWarning, match="module"):
        checkpoints.load_checkpoint(tmp_path / "a.pth", other)
    assert same(other, model)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


def test_a_malicious_pickle_never_runs(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Payload()))
    torch.save({"model": Payload()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError):
            checkpoints.load_checkpoint(name, model)
    assert not (tmp_path / "payload-ran").exists()


def test_a_whole_module_is_refused_with_an_explanation(model, tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds Python objects"):
        checkpoints.load_checkpoint(tmp_path / "a.pth", model)


def test_broken_and_wrong_checkpoints(model, tmp_path):
    good, path = tmp_path / "good.pth", tmp_path / "a.pth"
    checkpoints.save_checkpoint(good, model)
    state = dict(model.state_dict())
    first = "module_list.0.conv_0.weight"
    cases = [
        (b"", "is empty"),
        (good.read_bytes()[:-300], "damaged|cannot be read"),
        (b"junk" * 9, "no PyTorch checkpoint"),
        ({k: v for k, v in state.items() if k != first}, f"{first} is missing"),
        ({**state, "other": torch.zeros(1)}, "other is not in the network"),
        (
            {**state, first: torch.zeros(2, 3, 3, 3)},
            r"is \(2, 3, 3, 3\); \(8, 3, 3, 3\) in net.cfg.*a pruned network needs the pruned cfg",
        ),
        ({**state, first: 3}, f"{first} is a int"),
        ({**state, first: torch.full((8, 3, 3, 3), float("inf"))}, "layer 0: 216 of 216"),
        ([1], "holds a list"),
    ]
    for content, message in cases:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(CheckpointError, match=message):
            checkpoints.load_checkpoint(path, model)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(CheckpointError, match="would unpack to 10,000,000 bytes"):
        checkpoints.load_checkpoint(tmp_path / "a.pth", model)


def test_another_cfg_with_the_same_shapes_is_told(model, tmp_path):
    checkpoints.save_checkpoint(tmp_path / "a.pth", model)
    other = Darknet(parse_cfg(CFG.replace("activation=leaky", "activation=mish")))
    with pytest.warns(UserWarning, match="made with another cfg: activation is leaky there"):
        checkpoints.load_checkpoint(tmp_path / "a.pth", other)


def test_nothing_is_left_when_a_save_fails(model, tmp_path, monkeypatch):
    path = tmp_path / "net.weights"
    weights.save_weights(model, path)
    old = path.read_bytes()
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(DarkslimError, match="No space left"):
        weights.save_weights(model, path, 5)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["net.weights"]


def test_half_and_bfloat_models_are_written_as_float32(model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights.save_weights(model.bfloat16(), tmp_path / "a.weights")
    assert (tmp_path / "a.weights").stat().st_size == weights.model_bytes(model)
