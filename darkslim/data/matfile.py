"""MATLAB 5 files, as far as annotations need them: numbers, cells and structs, read within bounds.

The format is that of "MAT-File Format", The MathWorks, version 5. General readers trust the sizes that a
file states, some of them in C; here nothing is taken that the bytes at hand do not hold, so that a damaged
file is an error and never a crash or a gigabyte.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

MATRIX, COMPRESSED = 14, 15  # data types (table 1-1)
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CELL, STRUCT, OBJECT, NUMERIC = 1, 2, 3, range(6, 16)  # array classes (table 1-3)
HEADER = 128
MAX_UNPACKED = 64 << 20  # bytes, of all variables together
MAX_ARRAYS = 200_000  # of a variable, with all that it holds
MAX_DEPTH = 16
TOO_MANY = "arrays are nested too deeply, or are too many"
Value = np.ndarray | list | None  # numbers; cells or structs (dicts); anything else


class MatError(ValueError):
    """What is wrong with a file."""


def read_variable(data: bytes, name: str) -> Value:
    """One variable of a file.

    Returns:
        A float64 array of any shape, flat and column by column; a list of values (cell array); a list of
        dicts (struct array); None for what is neither, such as text.

    Raises:
        MatError: no such file, damaged, too large. KeyError: no variable of that name.
    """
    order, at, unpacked = _byte_order(data), HEADER, 0
    whole = memoryview(data)
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if size > len(data) - at - 8:
            raise MatError(f"an element of {size:,} bytes is cut off")
        body = whole[at + 8 : at + 8 + size]
        at += 8 + size
        if kind == COMPRESSED:
            body, kind = _unpack(body, order, MAX_UNPACKED - unpacked)
            unpacked += len(body)
        if kind == MATRIX:
            found, value = _Reader(order).matrix(body, 0, name)
            if found == name:
                return value
    raise KeyError(name)


def _byte_order(data: bytes) -> str:
    if data.startswith(b"MATLAB 7.3") or data[HEADER * 4 : HEADER * 4 + 8] == b"\x89HDF\r\n\x1a\n":
        raise MatError("it is a MATLAB 7.3 file; save it with -v7")
    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        raise MatError("it has no header of a MATLAB 5 file")
    return "<" if data[126:128] == b"IM" else ">"


def _unpack(body: memoryview, order: str, most: int) -> tuple[memoryview, int]:
    """What a compressed element holds, and its type."""
    try:
        plain = zlib.decompressobj().decompress(body, most + 1)
    except zlib.error as e:
        raise MatError(f"it is damaged ({e})") from None
    if len(plain) > most:
        raise MatError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
    if len(plain) < 8:
        raise MatError("a compressed element is cut off")
    kind, size = struct.unpack_from(f"{order}II", plain)
    if size > len(plain) - 8:
        raise MatError("a compressed element is cut off")
    return memoryview(plain)[8 : 8 + size], kind


@dataclass
class _Reader:
    """Reads arrays within arrays, and counts them."""

    order: str
    arrays: int = 0

    def matrix(self, body: memoryview, depth: int, wanted: str | None = None) -> tuple[str, Value]:
        """Name and value of an array; the value is None where another name is `wanted`."""
        self.arrays += 1
        if depth > MAX_DEPTH or self.arrays > MAX_ARRAYS:
            raise MatError(TOO_MANY)
        if not len(body):
            return "", []  # an empty cell
        flags, rest = self.whole(body)
        shape, rest = self.whole(rest)
        title, rest = self.element(rest)[1:]
        name = bytes(title).decode("latin-1")
        if not len(flags) or not len(shape) or min(shape) < 0:
            raise MatError("an array has no class or no shape")
        if wanted is not None and name != wanted:
            return name, None
        kind, count = int(flags[0]) & 0xFF, math.prod(int(v) for v in shape)
        if kind in NUMERIC:
            values = self.numbers(rest)[0]
            if len(values) != count:
                raise MatError(f"an array of {count:,} numbers holds {len(values):,}")
            return name, values.astype(np.float64)
        if kind == CELL:
            return name, self.several(rest, count, depth)[0]
        if kind in (STRUCT, OBJECT):
            return name, self.structs(rest, count, depth, kind)
        return name, None

    def structs(self, rest: memoryview, count: int, depth: int, kind: int) -> list[dict[str, Value]]:
        """The elements of a struct array."""
        if kind == OBJECT:
            rest = self.element(rest)[2]  # the name of its class
        length, rest = self.whole(rest)
        names, rest = self.element(rest)[1:]
        step = int(length[0]) if len(length) else 0
        if not 0 < step <= 64 or len(names) % step:
            raise MatError("the fields of a struct have no names")
        fields = [
            bytes(names[i : i + step]).split(b"\0")[0].decode("latin-1") for i in range(0, len(names), step)
        ]
        if not fields or count * len(fields) > len(rest) // 8:
            raise MatError("a struct is cut off")
        result = []
        for _ in range(count):
            values, rest = self.several(rest, len(fields), depth)
            result.append(dict(zip(fields, values, strict=True)))
        return result

    def several(self, rest: memoryview, count: int, depth: int) -> tuple[list[Value], memoryview]:
        """That many arrays, one behind the other."""
        if count > len(rest) // 8:
            raise MatError("a cell array is cut off")
        if self.arrays + count > MAX_ARRAYS:  # said before the first of them is read
            raise MatError(TOO_MANY)
        values = []
        for _ in range(count):
            kind, body, rest = self.element(rest)
            if kind != MATRIX:
                raise MatError("a cell holds no array")
            values.append(self.matrix(body, depth + 1)[1])
        return values, rest

    def whole(self, rest: memoryview) -> tuple[np.ndarray, memoryview]:
        """A data element of whole numbers."""
        values, rest = self.numbers(rest)
        if values.dtype.kind == "f":
            raise MatError("fractions where whole numbers belong")
        return values, rest

    def numbers(self, rest: memoryview) -> tuple[np.ndarray, memoryview]:
        """A data element of numbers."""
        kind, body, rest = self.element(rest)
        if kind not in NUMBERS:
            raise MatError(f"data of type {kind} where numbers belong")
        dtype = np.dtype(NUMBERS[kind]).newbyteorder(self.order)
        if len(body) % dtype.itemsize:
            raise MatError("a number is cut off")
        return np.frombuffer(body, dtype), rest

    def element(self, rest: memoryview) -> tuple[int, memoryview, memoryview]:
        """Type, content, and what comes behind it."""
        if len(rest) < 8:
            raise MatError("it is cut off")
        first, size = struct.unpack_from(f"{self.order}II", rest)
        if first >> 16:  # up to four bytes lie within the tag
            if first >> 16 > 4:
                raise MatError("a small element of more than four bytes")
            return first & 0xFFFF, rest[4 : 4 + (first >> 16)], rest[8:]
        if size > len(rest) - 8:
            raise MatError(f"an element of {size:,} bytes is cut off")
        return first, rest[8 : 8 + size], rest[8 + size + -size % 8 :]
