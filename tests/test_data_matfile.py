"""The bounded reader of MATLAB files, against scipy's, and against files made to hurt."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from darkslim.base.errors import DatasetError
from darkslim.data import matfile, oxford


def saved(value, **options) -> bytes:
    stream = io.BytesIO()
    savemat(stream, {"before": np.arange(5), "boxes": value, "text": "words"}, **options)
    return stream.getvalue()


def cells(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    array = np.empty((1, count), object)
    for i in range(count):
        array[0, i] = {name: rng.integers(1, 300, (1, 2)) * (1 if i % 2 else 1.5) for name in "abcd"}
    return array


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("count", (0, 1, 2, 7, 40))
def test_the_same_as_scipy(count, packed, tmp_path):
    data = saved(cells(count), do_compression=packed)
    ours = matfile.read_variable(data, "boxes")
    theirs = loadmat(io.BytesIO(data))["boxes"].ravel()
    assert len(ours) == count
    for mine, cell in zip(ours, theirs, strict=True):
        for name in "abcd":
            np.testing.assert_array_equal(mine[0][name], cell[name][0, 0].ravel())
    (tmp_path / "a.mat").write_bytes(data)
    quads = oxford.read_mat(tmp_path / "a.mat")
    assert [q.shape for q in quads] == [(4, 2)] * count


@pytest.mark.parametrize("dtype", "bBhHiIqQfd")
def test_every_type_of_number(dtype):
    values = np.array([[1, 2, 3], [4, 5, 100]], dtype)
    np.testing.assert_array_equal(matfile.read_variable(saved(values), "boxes"), values.ravel(order="F"))


def big_endian() -> bytes:
    """A file of another machine: boxes = [1 2], written by hand."""

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)

    body = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2))
    body += element(1, b"boxes") + element(9, struct.pack(">dd", 1, 2))
    return b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, body)


def test_another_byte_order():
    assert matfile.read_variable(big_endian(), "boxes").tolist() == [1, 2]


def hurts() -> dict[str, bytes]:
    whole = saved(cells(2))
    head = whole[:128]

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)

    def array(kind: int, shape, rest: bytes, name=b"boxes") -> bytes:
        body = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
        return element(14, body + element(1, name) + rest)

    nested = array(6, (1, 1), element(9, bytes(8)), b"")
    for _ in range(100):
        nested = array(1, (1, 1), nested, b"")
    return {
        "lying size": head + struct.pack("<II", 14, 0xFFFFFFF0),
        "huge shape": head + array(6, (2**30, 2**30), element(9, bytes(16))),
        "huge cells": head + array(1, (2**30, 1), b""),
        "huge struct": head + array(2, (2**30, 1), element(5, struct.pack("<i", 4)) + element(1, b"abc\0")),
        "negative": head + array(6, (-1, 2), element(9, bytes(16))),
        "deep": head + array(1, (1, 1), nested),
        "bomb": head + element(15, zlib.compress(bytes(200 << 20), 9)),
        "many": head + array(1, (300_000, 1), element(14, b"") * 300_000),
        "hdf": b"MATLAB 7.3 MAT-file".ljust(600),
        "text": b"no mat file",
        "fields": head + array(2, (1, 1), element(5, struct.pack("<i", 0)) + element(1, b"")),
    }


@pytest.mark.parametrize("name", hurts())
def test_files_made_to_hurt(name, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(hurts()[name])
    tracemalloc.start()
    try:
        start = time.process_time()
        with pytest.raises(DatasetError, match="a.mat: this annotation cannot be read|bytes long"):
            oxford.read_mat(path)
        assert time.process_time() - start < 2
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_what_fuzzing_found():
    """One killed a general reader of such files, and its process with it; one took ours seconds."""
    for path in sorted((Path(__file__).parent / "fuzz_finds/mat").iterdir()):
        start = time.process_time()
        with pytest.raises(DatasetError, match="this annotation cannot be read|has no variable|no corners"):
            oxford.read_mat(path)
        assert time.process_time() - start < 1, path.name


def test_damaged_files_never_get_further_than_an_error(tmp_path):
    rng = np.random.default_rng(0)
    wholes = [saved(cells(3)), saved(cells(3), do_compression=True)]
    for trial in range(3000):
        data = bytearray(wholes[trial % 2])
        for place in rng.integers(100, len(data), rng.integers(1, 5)):
            data[place] = rng.integers(0, 256)
        if trial % 3 == 0:
            del data[rng.integers(0, len(data)) :]
        try:
            matfile.read_variable(bytes(data), "boxes")
        except (matfile.MatError, KeyError):
            pass
