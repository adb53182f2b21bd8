"""What a page tells of the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

#: A data folder may hold many thousand files: it is looked through no more often than this (seconds).
_LOOK_SECONDS = 30.0
#: Below this share of a disk, or so many bytes, a page warns.
_SCARCE_SHARE, _SCARCE_BYTES = 0.05, 2 * 1024**3


class DiskFacts(NamedTuple):
    """Bytes: ``used`` by the data folder, ``free`` and ``size`` of its disk."""

    used: int
    free: int
    size: int

    @property
    def scarce(self) -> bool:
        return self.free < max(_SCARCE_BYTES, _SCARCE_SHARE * self.size)


class Disk:
    """The disk of a data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked = float("-inf")
        self._used = 0

    async def facts(self) -> DiskFacts | None:
        """None where the disk cannot be read."""
        try:
            return await asyncio.to_thread(self._facts)
        except OSError:
            return None

    def _facts(self) -> DiskFacts:
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._used = _size(self._folder)
        disk = shutil.disk_usage(self._folder)
        return DiskFacts(self._used, disk.free, disk.total)


def _size(folder: Path) -> int:
    """Of what is in it; what goes away meanwhile is nothing."""
    found, waiting = 0, [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        found += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return found
