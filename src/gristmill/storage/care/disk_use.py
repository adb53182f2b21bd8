"""What a server's data takes of the disk, part by part."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from gristmill.storage.care.check import find_orphans
from gristmill.storage.disk_room import room_of
from gristmill.storage.open import Places
from gristmill.storage.protocol import Storage


class DiskUse(msgspec.Struct, frozen=True):
    """In bytes. ``database_free`` is part of ``database`` and used again; ``files`` is by purpose; ``orphans`` belong
    to nothing; ``free`` and ``size`` are of the disk that the files are on."""

    database: int
    database_free: int
    write_ahead_log: int
    answers: int
    scratch: int
    files: dict[str, int]
    orphans: int
    free: int
    size: int


async def disk_use(storage: Storage, where: Places) -> DiskUse:
    """Raises OSError where the disk cannot be read."""
    sizes = await storage.metadata.upkeep.sizes()
    orphans = await find_orphans(storage, where.blobs, time.time())
    room = room_of(where.blobs)
    return DiskUse(
        database=sizes.bytes,
        database_free=sizes.free,
        write_ahead_log=_size(where.database.with_name(where.database.name + "-wal")),
        answers=_size(where.answers),
        scratch=sum(map(_size, (where.data / "scratch").rglob("*"))),
        files=await storage.metadata.upkeep.bytes_by_purpose(),
        orphans=sum(orphan.bytes for orphan in orphans),
        free=room.free,
        size=room.size,
    )


def _size(path: Path) -> int:
    """0 for what is not there."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0
