"""A file that holds a prefix: its tokens, and their KV state as the library that computed it wrote it.

It is a mark, a heading with a digest, then slices of as many tokens each, each with its length and a digest that
covers the heading as well: a slice of another prefix, or out of its place, is none. So a file that was cut or damaged
anywhere is known to be, before what it holds reaches a library.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

#: The number is the format's: raise it when this file writes anything differently.
_MARK = b"gristmill prefix 1\n"
_length = struct.Struct("<Q")
_index = struct.Struct("<I")
_DIGEST_BYTES = 32
#: Of a heading. A million tokens are 4 MB.
_MOST_HEADING = 64 * 2**20

#: Bytes.
_TOKEN = 4


class DamagedError(Exception):
    """The file is not a whole prefix file of this version; the message says why, as in "it <message>"."""


class Heading(msgspec.Struct, frozen=True):
    """``made_by`` is all that the KV state depends on besides the tokens; ``model``: what requests call the model.
    ``tokens`` are little-endian int32; each slice but the last has ``slice_tokens`` of them."""

    made_by: str
    model: str
    tokens: bytes
    slice_tokens: int

    @property
    def count(self) -> int:
        """Of tokens."""
        return len(self.tokens) // _TOKEN


class Slice(NamedTuple):
    """KV state of the tokens from ``begin`` to ``end``, which is not included."""

    begin: int
    end: int
    data: bytes


class PrefixWriter:
    """Writes to ``file``, which is empty: the heading first, then a slice with each ``add``."""

    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        """Raises OSError, as ``add`` does."""
        body = msgspec.msgpack.encode(heading)
        start = _MARK + _length.pack(len(body)) + body
        self._file = file
        self._digest = hashlib.sha256(start).digest()
        self._slices = 0
        file.write(start)
        file.write(self._digest)

    def add(self, data: bytes | memoryview) -> None:
        self._file.write(_length.pack(len(data)))
        self._file.write(_slice_digest(self._digest, self._slices, data))
        self._file.write(data)
        self._slices += 1


class PrefixFile:
    """One that is open for reading. Its heading has been checked, its slices are as they are read."""

    def __init__(self, path: Path) -> None:
        """Raises DamagedError, or OSError where it cannot be read."""
        self._file = _open(path)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._read_heading()
        except BaseException:
            self.close()
            raise

    def _read_heading(self) -> None:
        start = self._read(len(_MARK) + _length.size)
        if not start.startswith(_MARK):
            raise DamagedError("was not written by this version")
        (length,) = _length.unpack(start[len(_MARK) :])
        if length > _MOST_HEADING:
            raise DamagedError("has a heading that is too long")
        body = self._read(length)
        self._digest = self._read(_DIGEST_BYTES)
        if hashlib.sha256(start + body).digest() != self._digest:
            raise DamagedError("has a heading that was changed")
        try:
            self.heading = msgspec.msgpack.decode(body, type=Heading)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DamagedError(f"has a heading that cannot be read: {error}") from None
        length = len(self.heading.tokens)
        if not length or length % _TOKEN or self.heading.slice_tokens <= 0:
            raise DamagedError("has a heading without tokens")

    def slices(self, tokens: int) -> Iterator[Slice]:
        """Those that hold the first ``tokens`` tokens; once, and the first slices only once they are wanted. Raises
        DamagedError and OSError on the way."""
        size, count = self.heading.slice_tokens, self.heading.count
        for index, begin in enumerate(range(0, min(tokens, count), size)):
            (length,) = _length.unpack(self._read(_length.size))
            digest = self._read(_DIGEST_BYTES)
            data = self._read(length)
            if _slice_digest(self._digest, index, data) != digest:
                raise DamagedError("holds what was not written to it")
            yield Slice(begin, min(begin + size, count), data)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PrefixFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, length: int) -> bytes:
        """Never asks for more than the file has: a length in it may be any number."""
        if length > self.size - self._file.tell():
            raise DamagedError("is cut short")
        data = self._file.read(length)
        if len(data) < length:
            raise DamagedError("is cut short")
        return data


def _open(path: Path) -> BinaryIO:
    """Not what a link leads to, and without waiting for the other end of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedError("is a link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedError("is no regular file")
    return os.fdopen(descriptor, "rb")


def _slice_digest(heading: bytes, index: int, data: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(heading + _index.pack(index))
    digest.update(data)
    return digest.digest()
