"""What a page tells of the disk."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from gristmill.storage.care.disk_use import disk_use
from gristmill.storage.disk_room import room_of
from gristmill.storage.open import Places
from gristmill.storage.protocol import Storage

#: All parts are looked at no more often than this (seconds).
_LOOK_SECONDS = 30.0
#: Below this share of a disk, or so many bytes, a page warns.
_SCARCE_SHARE, _SCARCE_BYTES = 0.05, 2 * 1024**3


class DiskFacts(NamedTuple):
    """Bytes: ``used`` by all that the server stores on it, ``free`` and ``size`` of the disk that its files are on, or
    that its data folder is on where the files are in an object store."""

    used: int
    free: int
    size: int

    @property
    def scarce(self) -> bool:
        return self.free < max(_SCARCE_BYTES, _SCARCE_SHARE * self.size)


class Disk:
    def __init__(self, storage: Storage, where: Places) -> None:
        self._storage = storage
        self._where = where
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self._used = 0

    async def facts(self) -> DiskFacts | None:
        """None where the disk cannot be read."""
        try:
            async with self._looking:
                if time.monotonic() - self._looked > _LOOK_SECONDS:
                    self._used = (await disk_use(self._storage, self._where, with_orphans=False)).used
                    self._looked = time.monotonic()
            room = await self._storage.blobs.room()
            if room is None:
                room = await asyncio.to_thread(room_of, self._where.data)
        except OSError:
            return None
        return DiskFacts(self._used, room.free, room.size)
