"""The header of a GGUF file: its metadata, and whether all of its tensors are there.

The ``gguf`` package's own reader builds an object for each vocabulary entry (seconds on a small model, ten on
a large vocabulary); a look at the header must take milliseconds. Its tables of types are used as they are.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from gristmill.extras import require
from gristmill.models.gguf_cursor import ARRAY, GgufCursor
from gristmill.user_error import UserError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32


class GgufHeader(NamedTuple):
    """``metadata`` holds scalars and strings; ``lengths`` those of arrays, and ``numbers`` the short ones among them
    (the vocabulary is left out). ``end`` is where the last tensor ends, in bytes from the start of the file.
    ``tensors`` are their names."""

    metadata: dict[str, str | int | float | bool]
    numbers: dict[str, tuple[float, ...]]
    lengths: dict[str, int]
    parameters: int
    end: int
    tensors: frozenset[str]


def read_header(path: Path) -> GgufHeader:
    """Raises UserError when the file is not GGUF, of an unknown version, or shorter than its header says."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise UserError(f"'{path}' is not a GGUF file: give the path of a .gguf file or of an IR folder.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header = _parse(data, path)
            except (struct.error, UnicodeDecodeError):
                raise truncated(path) from None
            if header.end > len(data):
                raise truncated(path)
    return header


def truncated(path: Path) -> UserError:
    return UserError(f"The GGUF file '{path}' is damaged or cut short: download or copy it again.")


def _parse(data: mmap.mmap, path: Path) -> GgufHeader:
    cursor = GgufCursor(data)
    version, tensors, keys = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    if version not in _VERSIONS:
        raise UserError(f"The GGUF file '{path}' is of a version that is not supported: convert it to version 3.")
    metadata: dict[str, str | int | float | bool] = {}
    numbers: dict[str, tuple[float, ...]] = {}
    lengths: dict[str, int] = {}
    for _ in range(keys):
        key, kind = cursor.string(), cursor.number("I")
        if kind == ARRAY:
            lengths[key], numbers[key] = cursor.array()
        else:
            metadata[key] = cursor.value(kind)
    sizes = require("gguf").GGML_QUANT_SIZES
    parameters = last = 0
    names = []
    for _ in range(tensors):
        names.append(cursor.string())
        elements = 1
        for _ in range(cursor.number("I")):
            elements *= cursor.number("Q")
        kind, offset = cursor.number("I"), cursor.number("Q")
        # A type that is newer than the table may be one that llama.cpp knows.
        block, size = sizes.get(kind, (1, 0))
        parameters += elements
        last = max(last, offset + elements // block * size)
    alignment = int(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    # The first of several files may hold no tensors at all, and then nothing is padded.
    start = -(-cursor.at // alignment) * alignment if tensors else cursor.at
    return GgufHeader(metadata, numbers, lengths, parameters, start + last, frozenset(names))
