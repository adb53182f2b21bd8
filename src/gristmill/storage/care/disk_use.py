"""What a server's data takes of the disk, part by part."""

from __future__ import annotations

import asyncio
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
    to nothing, 0 where they were not looked for; ``free`` and ``size`` are of the disk that the files are on, or, where
    they are ``elsewhere``, in an object store, of the data folder's."""

    database: int
    database_free: int
    write_ahead_log: int
    answers: int
    scratch: int
    scorings: int
    files: dict[str, int]
    orphans: int
    free: int
    size: int
    elsewhere: bool = False

    @property
    def used(self) -> int:
        """All of it that is on a disk here."""
        parts = (self.database, self.write_ahead_log, self.answers, self.scratch, self.scorings)
        return sum(parts) + (0 if self.elsewhere else self.orphans + sum(self.files.values()))


async def disk_use(storage: Storage, where: Places, *, with_orphans: bool = True) -> DiskUse:
    """To look for orphans takes a look at every file. Raises OSError where the disk cannot be read."""
    sizes = await storage.metadata.upkeep.sizes()
    orphans = await find_orphans(storage, time.time()) if with_orphans else []
    of_files = await storage.blobs.room()
    room = of_files if of_files is not None else await asyncio.to_thread(room_of, where.data)
    return DiskUse(
        database=sizes.bytes,
        database_free=sizes.free,
        write_ahead_log=0 if where.database is None else _size(where.database.with_name(where.database.name + "-wal")),
        answers=_size(where.answers),
        scratch=await asyncio.to_thread(_folder_size, where.data / "scratch"),
        scorings=await asyncio.to_thread(_folder_size, where.scorings),
        files=await storage.metadata.upkeep.bytes_by_purpose(),
        orphans=sum(orphan.bytes for orphan in orphans),
        free=room.free,
        size=room.size,
        elsewhere=of_files is None,
    )


def _size(path: Path) -> int:
    """0 for what is not there."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _folder_size(folder: Path) -> int:
    """Of the files in it; what goes away meanwhile is nothing."""
    found, waiting = 0, [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        found += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return found
