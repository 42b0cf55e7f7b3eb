"""Packed networks: bit for bit what they were, every byte accounted for, damage refused."""

from __future__ import annotations

import random
import resource
import time
import zlib

import numpy as np
import pytest
import torch
from random_cfgs import random_network

from darkslim.base.errors import DarkslimError, WeightsError
from darkslim.compression.sharing import share
from darkslim.network import packed
from darkslim.network.arrays import in_order
from darkslim.network.darknet import Darknet
from darkslim.network.entropy import CODERS, canonical, code_lengths, entropy_bits, frequencies
from darkslim.network.weights import load_model, load_weights, weights_bytes


def symbols(n: int, count: int, skew: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(count, n, p=rng.dirichlet(np.full(count, skew))).astype(np.uint8)


@pytest.mark.parametrize("name", list(CODERS))
@pytest.mark.parametrize("n", [1, 5, 2047, 2048, 2049, 30_000])
def test_coders_give_back_what_they_got(name, n):
    for count, skew in ((1, 1), (2, 1), (256, 0.05), (32, 1), (33, 10)):
        some = symbols(n, count, skew)
        data = CODERS[name].encode(some, count)
        assert (CODERS[name].decode(data, n, count, "x") == some).all()
        with pytest.raises(WeightsError):
            CODERS[name].decode(data[: count // 2], n, count, "x")


def test_coders_come_near_the_entropy():
    for count, skew in ((16, 0.3), (32, 1), (256, 1)):
        some = symbols(400_000, count, skew)
        bound = entropy_bits(some, count) / 8
        assert bound <= len(CODERS["ans"].encode(some, count)) < 1.004 * bound + 600
        assert bound <= len(CODERS["huffman"].encode(some, count)) < 1.06 * bound + 600
        cost = CODERS["ans"].cost(some, count) / 8
        assert abs(cost / len(CODERS["ans"].encode(some, count)) - 1) < 0.01


def test_huffman_is_optimal_and_prefix_free():
    seen = np.array([45, 13, 12, 16, 9, 5, 0])  # the example of Cormen's textbook: 224 bits
    lengths = code_lengths(seen)
    assert (seen * lengths).sum() == 224 and lengths[6] == 0
    codes = [format(c, f"0{n}b") for c, n in zip(canonical(lengths), lengths, strict=True) if n]
    assert not any(a != b and b.startswith(a) for a in codes for b in codes)
    fibonacci = np.array([1, 1] + [0] * 28)  # codes as long as can be, were they not bounded
    for i in range(2, 30):
        fibonacci[i] = fibonacci[i - 1] + fibonacci[i - 2]
    assert code_lengths(fibonacci).max() == 15 and (2.0 ** -code_lengths(fibonacci)).sum() <= 1
    for seen in (fibonacci, np.array([1]), np.array([0, 10**9, 1]), np.ones(256, int)):
        assert frequencies(seen).sum() == 1 << 16 and ((frequencies(seen) > 0) == (seen > 0)).all()


def test_distances_by_hand():
    codes = np.zeros(40, np.uint8)
    codes[[0, 3, 13, 39]] = 1, 2, 3, 4
    gaps, kept = packed.distances(codes, 2)  # of at most four, fillers beyond
    assert gaps.tolist() == [0, 2, 3, 3, 1, 3, 3, 3, 3, 3, 3, 1]
    assert kept.tolist() == [1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 4]


def packs(model: Darknet, bits: int, zeros: float, coder: str, seed: int = 0):
    """The file of a network of which a share of each layer's weights is 0 and the rest shares values."""
    rng, shared = np.random.default_rng(seed), {}
    with torch.no_grad():
        for layer, conv in model.convolutions().items():
            floats = conv.weight.numpy().copy()
            floats[rng.random(floats.shape) < zeros] = 0
            shared[layer] = share(floats, bits)
            conv.weight.copy_(torch.from_numpy(shared[layer].weights()))
    return packed.packed_bytes(model, shared, coder, seen=5)


def check_round_trip(model: Darknet, data: bytes, told, path) -> None:
    path.write_bytes(data)
    found = packed.Packed(path)
    assert found.stored == told and found.cfg.text == model.cfg.text and found.seen == 5
    other = Darknet(model.cfg)
    load_weights(other, path)
    assert weights_bytes(other) == weights_bytes(model) and other.seen == 5
    header = packed.HEAD.size + packed.CFG.size + found.text_bytes + packed.TENSOR.size * len(told)
    assert header + sum(s.size for s in told) == len(data), "every byte"


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("coder", list(CODERS))
def test_round_trips_of_random_networks(tmp_path, bits, coder):
    for seed in range(13):  # 208 in all
        model = random_network(100 * bits + seed)
        zeros = (0.0, 0.5, 0.9, 1.0)[seed % 4]
        check_round_trip(model, *packs(model, bits, zeros, coder, seed), tmp_path / "x.packed")


def test_round_trips_of_the_golden_networks(tmp_path, golden):
    folders = [
        f for f in sorted(golden.iterdir()) if (f / "net.cfg").exists() and (f / "net.weights").exists()
    ]
    assert len(folders) >= 17
    for number, folder in enumerate(folders):
        model = load_model(str(folder / "net.cfg"), str(folder / "net.weights"))
        data, told = packs(model, 1 + number % 8, 0.8, ("ans", "huffman")[number % 2])
        check_round_trip(model, data, told, tmp_path / "x.packed")


def test_layers_that_are_kept_as_they_are_and_odd_ones(tmp_path):
    model = random_network(7)
    check_round_trip(model, *packed.packed_bytes(model, {}, seen=5), tmp_path / "raw.packed")
    convolutions = model.convolutions()
    values = {}
    with torch.no_grad():
        for number, (layer, conv) in enumerate(convolutions.items()):
            floats = np.zeros(conv.weight.shape, np.float32)
            if number % 3 == 1:
                floats[:] = -0.25  # one value
            if number % 3 == 2:
                floats.reshape(-1)[-1] = 3.5  # one weight, the last
            conv.weight.copy_(torch.from_numpy(floats))
            values[layer] = share(floats, 4)
    data, told = packed.packed_bytes(model, values, seen=5)
    check_round_trip(model, data, told, tmp_path / "odd.packed")
    assert all(s.size < 60 for s in told if s.name == "kernels")
    wrong = {layer: share(np.ones(conv.weight.shape, np.float32), 2) for layer, conv in convolutions.items()}
    with pytest.raises(WeightsError, match="not the kernels"):
        packed.packed_bytes(model, wrong)


def test_of_two_ways_the_smaller_is_written():
    for zeros, kind in ((0.0, packed.DENSE), (0.995, packed.SPARSE)):
        rng = np.random.default_rng(0)
        floats = rng.normal(size=(64, 32, 3, 3)).astype(np.float32)
        floats[rng.random(floats.shape) < zeros] = 0
        shared = share(floats, 5)
        for coder in CODERS:
            payload, row = packed.smallest(shared, coder)
            assert row[0] == kind or coder == "ans", "numeral systems hardly care"
            bound = entropy_bits(shared.codes.reshape(-1), 32) / 8
            assert len(payload) < 1.12 * bound + 400


def test_another_network_is_refused(tmp_path):
    model, other = random_network(3), random_network(4)
    (tmp_path / "a.packed").write_bytes(packed.packed_bytes(model, {})[0])
    with pytest.raises(WeightsError, match="is of another network; layer"):
        load_weights(other, tmp_path / "a.packed")
    with pytest.raises(WeightsError, match="unpack it first"):
        load_weights(model, tmp_path / "a.packed", cutoff=1)
    with torch.no_grad():
        next(iter(model.batch_norms().values())).running_var[0] = -1.0
    (tmp_path / "b.packed").write_bytes(packed.packed_bytes(model, {})[0])
    with pytest.raises(WeightsError, match="running variance is -1"):
        load_weights(model, tmp_path / "b.packed")


def spoiled(data: bytes, draw: random.Random) -> bytes:
    """A corruption, a truncation or an extension; sometimes with checksums put right again."""
    kind = draw.choice(("flip", "cut", "more", "swap", "checked", "checked"))
    if kind == "cut":
        return data[: draw.randrange(len(data))]
    if kind == "more":
        return data + draw.randbytes(draw.randrange(1, 50))
    changed = bytearray(data)
    if kind == "swap":
        a, b = sorted(draw.sample(range(len(data)), 2))
        part = changed[a:b]
        changed[a:b] = draw.randbytes(len(part)) if len(part) < 64 else part[::-1]
        return bytes(changed)
    for _ in range(draw.choice((1, 1, 3))):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    if kind == "checked":  # what a careful liar writes
        length = packed.HEAD.unpack_from(data)[3]
        header = changed[packed.HEAD.size : packed.HEAD.size + length]
        changed[packed.HEAD.size - 4 : packed.HEAD.size] = zlib.crc32(header).to_bytes(4, "little")
    return bytes(changed)


def test_a_thousand_damaged_files_are_refused_with_one_line(tmp_path):
    draw, refused, slowest = random.Random(0), 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole = []
    for seed in range(4):
        model = random_network(seed)
        data = packs(model, 5, 0.8, ("ans", "ans", "ans", "huffman")[seed])[0]
        whole.append((model, data, Darknet(model.cfg)))
    for _ in range(1000):
        model, data, other = draw.choice(whole)
        bad = spoiled(data, draw)
        if bad == data:
            continue
        (tmp_path / "bad.packed").write_bytes(bad)
        began = time.process_time()
        try:
            load_weights(other, tmp_path / "bad.packed")
        except DarkslimError as e:
            text = str(e)
            assert "\n" not in text and len(text) < 500 and "bad.packed" in text
            refused += 1
        else:  # bits of what the file says of itself, or of weights that are as good as others
            assert all(np.isfinite(t.detach().numpy()).all() for _, _, t in in_order(other))
        slowest = max(slowest, time.process_time() - began)
    assert refused >= 970, "the rest said something else with a checksum that holds"
    assert slowest < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_header_that_asks_for_much_gets_nothing(tmp_path):
    model = random_network(2)
    text = (model.cfg.text + "#" * (64 << 20)).encode()  # a cfg that unpacks to 64 MiB from 64 KiB
    pressed = zlib.compress(text, 9)
    header = packed.CFG.pack(0, len(text), len(pressed), 0) + pressed
    total = packed.HEAD.size + len(header)
    head = packed.HEAD.pack(packed.MAGIC, 1, 0, len(header), total, zlib.crc32(header))
    (tmp_path / "big.packed").write_bytes(head + header)
    began = time.process_time()
    with pytest.raises(WeightsError, match="do not add up"):
        packed.Packed(tmp_path / "big.packed")
    assert time.process_time() - began < 0.5
