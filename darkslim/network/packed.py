"""Packed networks: one file with the cfg and the weights, kernels as shared values and entropy-coded codes
(deep compression, Han 2016, arXiv 1510.00149). docs/container.md has every byte.

Biases, norms and statistics are kept as they are, float32. The kernels of a layer are kept so too, or as at
most 256 values and a code for each weight. Where most codes are 0, only the others are kept, each with its
distance from the one before (a filler where that is too far). What is smaller is written, layer by layer.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from ..base import files
from ..base.errors import WeightsError
from .arrays import check_values, in_order
from .cfg import MAX_BYTES, Cfg, parse_cfg
from .darknet import Darknet
from .entropy import CODERS, MOST, NAMES, damaged
from .twins import empty

MAGIC = b"\x89DKSLIM\n"
VERSION = 1
HEAD = struct.Struct(
    "<8sHHIQI"
)  # magic, version, 0, bytes of the header, bytes of the file, CRC of the header
CFG = struct.Struct("<qIII")  # seen, bytes of the cfg, of the cfg compressed, number of tensors
TENSOR = struct.Struct("<BBBBHHIQI")  # kind, coder, bits of a distance, 0, values, 0, entries, bytes, CRC
RAW, DENSE, SPARSE = 0, 1, 2
KINDS = {RAW: "float32", DENSE: "codes", SPARSE: "distances and codes"}
GAPS = (2, 3, 4, 5, 6, 7, 8)  # bits of a distance that are tried
MAX_HEADER = 64 << 20


@dataclass(frozen=True)
class Shared:
    """The kernels of one layer as shared values.

    Attributes:
        values: float32 (K,), at most 256; the first is 0 where any weight is.
        codes: uint8, of the kernels' shape: which value each weight has.
    """

    values: np.ndarray
    codes: np.ndarray

    def weights(self) -> np.ndarray:
        """The kernels, float32."""
        return self.values[self.codes]


@dataclass(frozen=True)
class Stored:
    """How one tensor lies in the file.

    Attributes:
        layer, name: as `arrays.in_order` has them. count: its numbers.
        kind: RAW, DENSE or SPARSE. coder: its name; None for RAW. gap: bits of a distance.
        values: how many it shares. entries: codes that are kept, fillers among them.
        size: bytes of its payload.
    """

    layer: int
    name: str
    count: int
    kind: int
    coder: str | None
    gap: int
    values: int
    entries: int
    size: int
    crc: int


# ---------------------------------------- writing


def packed_bytes(
    model: Darknet, shared: Mapping[int, Shared], coder: str = "ans", seen: int = 0
) -> tuple[bytes, list[Stored]]:
    """The file of a network, and how each tensor lies in it.

    Args:
        shared: layer -> its kernels as shared values, equal to those of `model` bit for bit; other layers are
            kept as float32.
        coder: "ans" or "huffman".

    Raises:
        WeightsError: shared values that are not the network's.
    """
    payloads, told, rows = [], [], []
    for layer, name, tensor in in_order(model):
        floats = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        kernels = shared.get(layer) if name == "kernels" else None
        if kernels is None:
            payload, row = floats.astype("<f4").tobytes(), (RAW, 0, 0, 0, floats.size)
        else:
            if kernels.codes.shape != floats.shape or not same_bits(kernels.weights(), floats):
                raise WeightsError(f"layer {layer}", "shared values are not the kernels", "the same numbers")
            payload, row = smallest(kernels, coder)
        kind, number, gap, values, entries = row
        crc = zlib.crc32(payload)
        rows.append(TENSOR.pack(kind, number, gap, 0, values, 0, entries, len(payload), crc))
        told.append(
            Stored(layer, name, floats.size, kind, NAMES.get(number), gap, values, entries, len(payload), crc)
        )
        payloads.append(payload)
    text = model.cfg.text.encode()
    pressed = zlib.compress(text, 9)
    header = CFG.pack(seen, len(text), len(pressed), len(rows)) + pressed + b"".join(rows)
    total = HEAD.size + len(header) + sum(map(len, payloads))
    head = HEAD.pack(MAGIC, VERSION, 0, len(header), total, zlib.crc32(header))
    return b"".join([head, header, *payloads]), told


def smallest(kernels: Shared, coder: str) -> tuple[bytes, tuple[int, int, int, int, int]]:
    """(payload, (kind, coder, bits of a distance, values, entries)) of the way that takes fewest bytes."""
    codes, count = kernels.codes.reshape(-1), len(kernels.values)
    number, values = CODERS[coder].number, kernels.values.astype("<f4").tobytes()
    bits, least = 0, CODERS[coder].cost(codes, count)
    if kernels.values[0] == 0 and (codes == 0).any():
        for some in GAPS:
            gaps, kept = distances(codes, some)
            cost = 32 + CODERS[coder].cost(kept, count) + CODERS[coder].cost(gaps, 1 << some)
            bits, least = (some, cost) if cost < least else (bits, least)
    if not bits:
        return values + CODERS[coder].encode(codes, count), (DENSE, number, 0, count, len(codes))
    gaps, kept = distances(codes, bits)
    streams = [CODERS[coder].encode(kept, count), CODERS[coder].encode(gaps, 1 << bits)]
    payload = values + struct.pack("<I", len(streams[0])) + b"".join(streams)
    return payload, (SPARSE, number, bits, count, len(kept))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two float32 arrays are equal, 0 and -0 told apart."""
    return np.array_equal(np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32))


def distances(codes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(distance less 1, code) of every code that is not 0, and of fillers of code 0 where the next is further
    than 2^bits away.

    Args:
        codes: uint8 (n,).
    """
    at = np.flatnonzero(codes)
    apart = np.diff(at, prepend=-1) - 1
    fillers = apart >> bits  # each bridges 2^bits
    last = np.cumsum(fillers + 1) - 1
    gaps = np.full(int(len(at) + fillers.sum()), (1 << bits) - 1, np.int64)
    kept = np.zeros(len(gaps), np.uint8)
    gaps[last], kept[last] = apart & ((1 << bits) - 1), codes[at]
    return gaps, kept


# ---------------------------------------- reading


def is_packed(head: bytes) -> bool:
    """Whether a file begins as a packed network."""
    return head.startswith(MAGIC)


class Packed:
    """A packed network, its header read and checked; the payloads are read one at a time.

    Attributes:
        path: of the file. cfg: what it describes. seen: images trained on. size: bytes of the file.
        stored: how each tensor lies in it. text_bytes: of the cfg as it is kept.

    Raises:
        WeightsError: it is no packed network, damaged, or of another length than it says.
        CfgError: the cfg in it cannot be read.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.size = files.check_regular(path, "packed network", WeightsError).st_size
        with open(path, "rb") as file:
            header = self._header(file)
        self.seen, length, pressed, tensors = CFG.unpack_from(header)
        if CFG.size + pressed + tensors * TENSOR.size != len(header) or length > MAX_BYTES:
            raise damaged(path, "the parts of its header do not add up")
        self.text_bytes = pressed
        self.cfg = self._cfg(header[CFG.size : CFG.size + pressed], length)
        arrays = in_order(empty(self.cfg, "meta"))
        if tensors != len(arrays):
            raise damaged(path, f"has {tensors} tensors where its cfg asks for {len(arrays)}")
        rows = TENSOR.iter_unpack(header[CFG.size + pressed :])
        self.stored = [
            self._row(layer, name, tensor.numel(), row)
            for (layer, name, tensor), row in zip(arrays, rows, strict=True)
        ]
        if HEAD.size + len(header) + sum(s.size for s in self.stored) != self.size:
            raise damaged(path, "its payloads are not as long as its header says")
        self._begin = HEAD.size + len(header)

    def _header(self, file: BinaryIO) -> bytes:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size or not is_packed(head):
            raise WeightsError(self.path, "is no packed network", "what `compress.py pack` writes")
        _, version, zero, length, total, crc = HEAD.unpack(head)
        if version != VERSION:
            raise WeightsError(self.path, f"is of version {version}", f"version {VERSION}", "update")
        if total != self.size:
            raise damaged(self.path, f"is {self.size:,} bytes long, and says that it is {total:,}")
        if zero or length < CFG.size or length > min(MAX_HEADER, self.size):
            raise damaged(self.path, "its head makes no sense")
        header = file.read(length)
        if zlib.crc32(header) != crc:
            raise damaged(self.path, "the checksum of its header does not hold")
        return header

    def _cfg(self, pressed: bytes, length: int) -> Cfg:
        unpack = zlib.decompressobj()
        try:
            text = unpack.decompress(pressed, length + 1)
            decoded = text.decode()
        except (zlib.error, UnicodeDecodeError) as e:
            raise damaged(self.path, f"the cfg in it cannot be read ({e})") from None
        if len(text) != length or not unpack.eof or unpack.unused_data:
            raise damaged(self.path, "the cfg in it is of another length than it says")
        return parse_cfg(decoded, f"{self.path} (cfg inside)")

    def _row(self, layer: int, name: str, count: int, row) -> Stored:
        kind, number, gap, zero, values, nought, entries, size, crc = row
        raw = kind == RAW and not (number or gap or values) and size == 4 * count and entries == count
        coded = (
            name == "kernels"
            and kind in (DENSE, SPARSE)
            and number in NAMES
            and 0 < values <= MOST
            and (gap in GAPS if kind == SPARSE else not gap and entries == count)
            and entries <= count
            and size <= self.size
        )
        if zero or nought or not (raw or coded):
            raise damaged(self.path, f"layer {layer}: the row of {name} makes no sense")
        return Stored(layer, name, count, kind, NAMES.get(number), gap, values, entries, size, crc)

    def arrays(self) -> Iterator[tuple[Stored, np.ndarray | Shared]]:
        """Every tensor, one at a time: float32 (count,), or its shared values with codes (count,).

        Raises:
            WeightsError: naming the layer whose payload is damaged.
        """
        with open(self.path, "rb") as file:
            file.seek(self._begin)
            for stored in self.stored:
                place = f"{self.path}, layer {stored.layer}"
                payload = file.read(stored.size)
                if len(payload) != stored.size or zlib.crc32(payload) != stored.crc:
                    raise damaged(place, f"the checksum of {stored.name} does not hold")
                yield stored, decoded(stored, payload, place)


def decoded(stored: Stored, payload: bytes, place) -> np.ndarray | Shared:
    """What a payload holds."""
    if stored.kind == RAW:
        return np.frombuffer(payload, "<f4").astype(np.float32)
    head = 4 * stored.values
    if len(payload) < head + 4 * (stored.kind == SPARSE):
        raise damaged(place, "the shared values are cut short")
    values = np.frombuffer(payload, "<f4", stored.values).astype(np.float32)
    coder = CODERS[stored.coder]
    if stored.kind == DENSE:
        codes = coder.decode(payload[head:], stored.count, stored.values, place)
        return Shared(values, in_range(codes, stored, place))
    (first,) = struct.unpack_from("<I", payload, head)
    streams = payload[head + 4 :]
    if first > len(streams):
        raise damaged(place, "its streams are cut short")
    kept = coder.decode(streams[:first], stored.entries, stored.values, place) if stored.entries else b""
    gaps = coder.decode(streams[first:], stored.entries, 1 << stored.gap, place) if stored.entries else b""
    at = np.cumsum(np.frombuffer(gaps, np.uint8).astype(np.int64) + 1) - 1
    if len(at) and at[-1] >= stored.count:
        raise damaged(place, "its distances lead out of the layer")
    codes = np.zeros(stored.count, np.uint8)
    codes[at] = np.frombuffer(kept, np.uint8)
    return Shared(values, in_range(codes, stored, place))


def in_range(codes: np.ndarray, stored: Stored, place) -> np.ndarray:
    if int(codes.max(initial=0)) >= stored.values:
        raise damaged(place, "a code has no value")
    return codes


def load_packed(model: Darknet, path) -> None:
    """Loads a packed network into a model of the same shapes.

    Raises:
        WeightsError: it is damaged, holds values that are no weights, or belongs to another cfg.
    """
    packed = Packed(path)
    mine = [(layer, name, tensor.numel()) for layer, name, tensor in in_order(model)]
    its = [(s.layer, s.name, s.count) for s in packed.stored]
    if mine != its:
        differs = next((a for a, b in zip(its, mine, strict=False) if a != b), None)
        where = f"; layer {differs[0]}: {differs[2]:,} numbers of {differs[1]}" if differs else ""
        raise WeightsError(
            path,
            f"is of another network{where}",
            f"the shapes of {model.cfg.path}",
            "use the cfg that it was packed with: `compress.py unpack` writes it",
        )
    with torch.no_grad():
        for (layer, name, tensor), (_, found) in zip(in_order(model), packed.arrays(), strict=True):
            floats = found.weights() if isinstance(found, Shared) else found
            check_values(path, [(layer, name, tensor)], floats)
            tensor.copy_(torch.from_numpy(floats).view(tensor.shape))
            if name == "variance":
                tensor.clamp_(min=0)
    model.seen = packed.seen
