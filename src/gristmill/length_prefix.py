"""Bodies one after the other on a pipe between two processes, each behind its length in four bytes."""

from __future__ import annotations

import asyncio
import struct
from typing import BinaryIO

_length = struct.Struct("<I")


def with_length(body: bytes) -> bytes:
    return _length.pack(len(body)) + body


async def next_body(stream: asyncio.StreamReader) -> bytes:
    """Raises IncompleteReadError where there is no more, or only a part."""
    (length,) = _length.unpack(await stream.readexactly(_length.size))
    return await stream.readexactly(length)


def wait_for_body(stream: BinaryIO) -> bytes | None:
    """The next one, blocking; None where there is no more, or only a part."""
    head = stream.read(_length.size)
    if len(head) < _length.size:
        return None
    (length,) = _length.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None
