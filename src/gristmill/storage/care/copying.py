"""Bytes of a backup on their way, piece by piece: told by their digest, bounded, and into a tar file."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from typing import BinaryIO, Protocol

from gristmill.storage.care.manifest import Entry

_CHUNK = 4 * 1024 * 1024


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


async def copy_into(path: str, reading: Readable, writing: BinaryIO) -> Entry:
    """The entry of what was copied. Gives way between pieces."""
    sha, size = hashlib.sha256(), 0
    while piece := reading.read(_CHUNK):
        sha.update(piece)
        size += len(piece)
        writing.write(piece)
        await asyncio.sleep(0)
    return Entry(path, size, sha.hexdigest())


class Bounded:
    """No more than ``room`` bytes of a file: one that is longer than it should be does not fill the disk."""

    def __init__(self, file: Readable, room: int) -> None:
        self._file, self._room = file, room

    def read(self, size: int) -> bytes:
        piece = self._file.read(min(size, self._room))
        self._room -= len(piece)
        return piece


class Member:
    """A file in a tar that is being written, piece by piece. ``tarfile`` itself takes it in one go, which nothing could
    interrupt."""

    def __init__(self, tar: tarfile.TarFile, file: BinaryIO, name: str, size: int) -> None:
        self._tar, self._file = tar, file
        self._info = tarfile.TarInfo(name)
        self._info.size, self._info.mode = size, 0o600

    def __enter__(self) -> BinaryIO:
        self._tar.addfile(self._info)
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.write(bytes(-self._info.size % tarfile.BLOCKSIZE))
        self._tar.offset = self._file.tell()
