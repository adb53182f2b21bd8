"""A GGUF file as it is laid out: the values of its header as bytes, and where each tensor's data are. What
``gguf_header`` does not keep, for writing another header over the same data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gristmill.extras import require
from gristmill.models.gguf_cursor import ARRAY, SCALARS, STRING, GgufCursor
from gristmill.models.gguf_header import DEFAULT_ALIGNMENT, MAGIC, truncated

_UINT32, _FLOAT32, _BOOL = 4, 6, 7


class GgufValue(NamedTuple):
    """``kind`` is the format's number of its type; ``raw`` what stands behind that."""

    kind: int
    raw: bytes


class GgufTensor(NamedTuple):
    """``shape`` begins with the fastest dimension. ``start`` and ``size`` of its data: bytes from the start of the
    file. ``size`` is None for a type that the gguf package does not know."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int | None


class GgufLayout(NamedTuple):
    """``tensors`` in the order of their data."""

    values: dict[str, GgufValue]
    tensors: tuple[GgufTensor, ...]

    def scalar(self, key: str) -> str | int | float | bool | None:
        """None where there is none, or an array."""
        found = self.values.get(key)
        if found is None or found.kind == ARRAY:
            return None
        return GgufCursor(found.raw, 0).value(found.kind)

    @property
    def alignment(self) -> int:
        found = self.scalar("general.alignment")
        return found if isinstance(found, int) and found > 0 else DEFAULT_ALIGNMENT


def read_layout(path: Path) -> GgufLayout:
    """Of a file that ``read_header`` has found whole. Raises UserError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _parse(data)
        except (struct.error, UnicodeDecodeError):
            raise truncated(path) from None


def _parse(data: mmap.mmap) -> GgufLayout:
    cursor = GgufCursor(data)
    _, tensors, keys = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    values: dict[str, GgufValue] = {}
    for _ in range(keys):
        key, kind = cursor.string(), cursor.number("I")
        start = cursor.at
        cursor.skip(kind)
        values[key] = GgufValue(kind, data[start : cursor.at])
    sizes = require("gguf").GGML_QUANT_SIZES
    found = []
    for _ in range(tensors):
        name = cursor.string()
        shape = tuple(cursor.number("Q") for _ in range(cursor.number("I")))
        kind, offset = cursor.number("I"), cursor.number("Q")
        found.append(GgufTensor(name, shape, kind, offset, _size(shape, sizes.get(kind))))
    layout = GgufLayout(values, ())
    base = aligned(cursor.at, layout.alignment)
    moved = (each._replace(start=base + each.start) for each in found)
    return layout._replace(tensors=tuple(sorted(moved, key=lambda each: each.start)))


def _size(shape: tuple[int, ...], block: tuple[int, int] | None) -> int | None:
    elements = 1
    for length in shape:
        elements *= length
    return None if block is None else elements // block[0] * block[1]


def aligned(at: int, alignment: int) -> int:
    """The next multiple from ``at`` on."""
    return -(-at // alignment) * alignment


def header_bytes(layout: GgufLayout) -> bytes:
    """For a file (version 3) that has the data of ``layout.tensors`` next, in their order, each padded to the
    alignment, as this is. Sizes must be known."""
    parts = [MAGIC, struct.pack("<IQQ", 3, len(layout.tensors), len(layout.values))]
    for key, value in layout.values.items():
        parts += [_string(key), struct.pack("<I", value.kind), value.raw]
    offset = 0
    for tensor in layout.tensors:
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        parts += [_string(tensor.name), shape, struct.pack("<IQ", tensor.kind, offset)]
        assert tensor.size is not None
        offset += aligned(tensor.size, layout.alignment)
    header = b"".join(parts)
    return header.ljust(aligned(len(header), layout.alignment), b"\0")


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def float_value(number: float) -> GgufValue:
    return GgufValue(_FLOAT32, struct.pack("<f", number))


def uint_value(number: int) -> GgufValue:
    return GgufValue(_UINT32, struct.pack("<I", number))


def bool_value(truth: bool) -> GgufValue:
    return GgufValue(_BOOL, struct.pack("<?", truth))


def string_value(text: str) -> GgufValue:
    return GgufValue(STRING, _string(text))


def first_of(value: GgufValue, count: int) -> GgufValue:
    """An array's first ``count`` entries; what is shorter, or no array of strings or numbers, as it is."""
    if value.kind != ARRAY:
        return value
    cursor = GgufCursor(value.raw, 0)
    kind, length = cursor.number("I"), cursor.number("Q")
    if length <= count or kind == ARRAY:
        return value
    start = cursor.at
    if kind in SCALARS:
        end = start + count * struct.calcsize("<" + SCALARS[kind])
    else:
        for _ in range(count):
            cursor.at += 8 + struct.unpack_from("<Q", value.raw, cursor.at)[0]
        end = cursor.at
    return GgufValue(ARRAY, struct.pack("<IQ", kind, count) + value.raw[start:end])


def total_bytes(header: bytes, tensors: Iterable[GgufTensor], alignment: int) -> int:
    """Of the whole file."""
    return len(header) + sum(aligned(tensor.size or 0, alignment) for tensor in tensors)
