"""Entropy coders for the symbols of a packed network: asymmetric numeral systems (Duda 2009, arXiv 0902.0271)
by the library constriction, and Huffman's codes (Huffman 1952) as deep compression has them.

A coder turns symbols 0..K-1 into a table, which the reader needs first, and a stream. Both are exact: what is
decoded is what was encoded. A damaged stream decodes to other symbols or is refused; checksums around it
(packed.py) tell.
"""

from __future__ import annotations

import heapq
from typing import Protocol

import numpy as np

from ..base.errors import WeightsError

MOST = 256  # symbols of one alphabet
UNIT = 1 << 16  # frequencies of a table add up to this
CHUNK = 2048  # symbols of a Huffman stream that are decoded one after another, chunks beside each other
LONGEST = 15  # bits of a Huffman code


class Coder(Protocol):
    """Symbols to bytes and back.

    Attributes:
        number: stands for it in files.
    """

    number: int

    def cost(self, symbols: np.ndarray, count: int) -> float:
        """About how many bits `encode` would take."""

    def encode(self, symbols: np.ndarray, count: int) -> bytes:
        """Table and stream of symbols (n,), whole numbers below `count`."""

    def decode(self, data: bytes, length: int, count: int, place) -> np.ndarray:
        """The `length` symbols of what `encode` made, uint8 (n,).

        Raises:
            WeightsError: with `place`: no such table or stream.
        """


def entropy_bits(symbols: np.ndarray, count: int) -> float:
    """The least that any coder of single symbols needs, in bits: n H(p) by their frequencies p."""
    return bits_of(np.bincount(symbols, minlength=count))


def bits_of(counts: np.ndarray) -> float:
    """The same, by how often there is each symbol."""
    seen = counts[counts > 0]
    return float(-(seen * np.log2(seen / max(1, counts.sum()))).sum())


class Ans:
    """Asymmetric numeral systems. Table: K frequencies, uint16, in units of 1/65536, less 1."""

    number = 1

    def cost(self, symbols: np.ndarray, count: int) -> float:
        return entropy_bits(symbols, count) + 17 * count

    def encode(self, symbols: np.ndarray, count: int) -> bytes:
        seen = np.bincount(symbols, minlength=count)
        table = frequencies(seen)
        head = (np.maximum(table, 1) - 1).astype("<u2").tobytes() + packed_flags(table > 0)
        used = np.flatnonzero(table)
        if len(used) < 2:
            return head
        place = np.zeros(count, np.int32)
        place[used] = np.arange(len(used))
        coder = _constriction().stream.stack.AnsCoder()
        coder.encode_reverse(place[symbols], _model(table[used]))
        return head + coder.get_compressed().astype("<u4").tobytes()

    def decode(self, data: bytes, length: int, count: int, place) -> np.ndarray:
        head = 2 * count + -(-count // 8)
        if len(data) < head or (len(data) - head) % 4:
            raise damaged(place, "the table of frequencies is cut short")
        used = np.flatnonzero(unpacked_flags(data[2 * count : head], count))
        table = np.frombuffer(data, "<u2", count).astype(np.int64)[used] + 1
        if not len(used) or table.sum() != UNIT or (len(used) == 1 and len(data) > head):
            raise damaged(place, "the frequencies do not add up")
        if len(used) == 1:
            return np.full(length, used[0], np.uint8)
        words = np.frombuffer(data, "<u4", offset=head).astype(np.uint32)
        try:
            coder = _constriction().stream.stack.AnsCoder(words)
            found = coder.decode(_model(table), length)
        except (ValueError, AssertionError) as e:  # of the library, for words that no encoder makes
            raise damaged(place, f"the stream is none ({e})") from None
        if not coder.is_empty():
            raise damaged(place, "something is left of the stream")
        return used.astype(np.uint8)[found]


class Huffman:
    """Canonical Huffman codes. Table: K lengths in bits, uint8, 0 for symbols that do not occur. Stream: the
    number of bytes of each chunk, uint16, then the chunks, each from a byte of its own.
    """

    number = 2

    def cost(self, symbols: np.ndarray, count: int) -> float:
        seen = np.bincount(symbols, minlength=count)
        return float((seen * code_lengths(seen)).sum()) + 8 * count + 20 * len(symbols) / CHUNK

    def encode(self, symbols: np.ndarray, count: int) -> bytes:
        lengths = code_lengths(np.bincount(symbols, minlength=count))
        codes = canonical(lengths)
        each = lengths[symbols].astype(np.int64)
        chunks = -(-len(symbols) // CHUNK)
        starts = np.arange(chunks) * CHUNK
        bits = np.add.reduceat(each, starts) if chunks else np.zeros(0, np.int64)
        sizes = -(-bits // 8)
        first = np.concatenate([[0], np.cumsum(sizes)])[:-1] * 8  # where each chunk begins
        within = np.cumsum(each) - each
        at = within + np.repeat(first - within[starts], np.minimum(CHUNK, len(symbols) - starts))
        out, code = np.zeros(int(sizes.sum()) * 8, np.uint8), codes[symbols]
        for bit in range(int(lengths.max(initial=0))):
            has = each > bit
            out[at[has] + bit] = (code[has] >> (each[has] - 1 - bit)) & 1
        return lengths.astype(np.uint8).tobytes() + sizes.astype("<u2").tobytes() + np.packbits(out).tobytes()

    def decode(self, data: bytes, length: int, count: int, place) -> np.ndarray:
        chunks = -(-length // CHUNK)
        head = count + 2 * chunks
        if len(data) < head:
            raise damaged(place, "the table of code lengths is cut short")
        lengths = np.frombuffer(data, np.uint8, count).astype(np.int64)
        sizes = np.frombuffer(data, "<u2", chunks, count).astype(np.int64)
        if lengths.max(initial=0) > LONGEST or sizes.sum() != len(data) - head:
            raise damaged(place, "the lengths do not add up")
        if (2.0 ** -lengths[lengths > 0]).sum() > 1 or not (lengths > 0).any():
            raise damaged(place, "the code lengths are those of no code")
        symbol, size = lookup(lengths)
        stream = np.frombuffer(data[head:] + bytes(4), np.uint8).astype(np.int64)
        at = (np.cumsum(sizes) - sizes) * 8
        end = at + 8 * sizes
        found = np.zeros((chunks, CHUNK), np.uint8)
        for i in range(min(CHUNK, length)):
            live = chunks if i < length - (chunks - 1) * CHUNK else chunks - 1
            byte, shift = at[:live] >> 3, at[:live] & 7
            window = (stream[byte] << 16) | (stream[byte + 1] << 8) | stream[byte + 2]
            window = (window >> (24 - LONGEST - shift)) & ((1 << LONGEST) - 1)
            found[:live, i] = symbol[window]
            at[:live] += size[window]
            if (at[:live] > end[:live]).any() or not size[window].all():
                raise damaged(place, "a code of the stream is none")
        if ((end - at) >= 8).any():
            raise damaged(place, "something is left of the stream")
        return found.reshape(-1)[:length]


CODERS: dict[str, Coder] = {"ans": Ans(), "huffman": Huffman()}
NAMES = {coder.number: name for name, coder in CODERS.items()}


def damaged(place, found: str) -> WeightsError:
    return WeightsError(place, found, "a packed network", "it is damaged: copy it again")


def frequencies(seen: np.ndarray) -> np.ndarray:
    """Whole numbers (K,) that add up to UNIT, about in the ratio of how often symbols occur, and 0 only for
    those that do not.
    """
    table = np.where(seen > 0, np.maximum(1, np.round(seen / max(1, seen.sum()) * UNIT)), 0).astype(np.int64)
    while (left := UNIT - int(table.sum())) and table.any():  # of the largest, which feel it least
        largest = int(table.argmax())
        table[largest] += max(left, 1 - int(table[largest]) // 2)
    return table


def packed_flags(flags: np.ndarray) -> bytes:
    return np.packbits(flags).tobytes()


def unpacked_flags(data: bytes, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool)


def code_lengths(seen: np.ndarray) -> np.ndarray:
    """The lengths of Huffman codes in bits, int64 (K,), at most LONGEST; 0 for symbols that do not occur, 1
    for one that is alone.

    Where a code would be longer, rare symbols count as more frequent than they are, until none is.
    """
    lengths, more = _lengths(seen), 1
    while lengths.max(initial=0) > LONGEST:
        lengths, more = _lengths(np.where(seen > 0, seen + more, 0)), 2 * more
    return lengths


def _lengths(weights: np.ndarray) -> np.ndarray:
    lengths = np.zeros(len(weights), np.int64)
    heap = [(float(w), i, (i,)) for i, w in enumerate(weights) if w > 0]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i, below), (b, _, above) = heapq.heappop(heap), heapq.heappop(heap)
        joined = below + above
        lengths[list(joined)] += 1
        heapq.heappush(heap, (a + b, i, joined))
    return lengths


def canonical(lengths: np.ndarray) -> np.ndarray:
    """The codes (K,): shorter ones first, then by symbol, each the next number."""
    codes, code, before = np.zeros(len(lengths), np.int64), 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length:
            code <<= length - before
            codes[symbol], before = code, length
            code += 1
    return codes


def lookup(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(symbol, length) of the code with which each number of LONGEST bits begins; length 0 for none."""
    symbol = np.zeros(1 << LONGEST, np.uint8)
    size = np.zeros(1 << LONGEST, np.int64)
    for s, (length, code) in enumerate(zip(lengths.tolist(), canonical(lengths).tolist(), strict=True)):
        if length:
            first, last = code << (LONGEST - length), (code + 1) << (LONGEST - length)
            symbol[first:last], size[first:last] = s, length
    return symbol, size


def _model(table: np.ndarray):
    return _constriction().stream.model.Categorical(table / UNIT, perfect=False)


def _constriction():
    import constriction  # only for packed networks

    return constriction
