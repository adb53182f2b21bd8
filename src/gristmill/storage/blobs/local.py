"""Blobs in a local folder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from obstore.store import LocalStore

from gristmill.storage.blob_store import StoredBlob
from gristmill.storage.blobs.handover import regrouped
from gristmill.storage.blobs.obstore_blobs import CHUNK_BYTES, ObstoreBlobs
from gristmill.storage.disk_room import DiskRoom, room_of
from gristmill.storage.errors import BlobLost, DiskFull
from gristmill.storage.pressure import UnderPressure, is_pressure
from gristmill.storage.private import make_private, private_folder


class LocalBlobStore(ObstoreBlobs):
    """Blobs as files below ``folder``, for nobody else to read. A blob appears under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        private_folder(folder)
        self._folder = folder
        super().__init__(LocalStore(folder))

    @property
    def location(self) -> str:
        return str(self._folder)

    def remove_unfinished(self) -> None:
        """Drop what writes cut off by a kill left behind (``name#1``); only while nothing is being written."""
        for path in self._folder.rglob("*#*"):
            path.unlink(missing_ok=True)

    async def try_out(self) -> None:
        """The folder was made, or was there, as this was opened."""

    async def room(self) -> DiskRoom | None:
        return await asyncio.to_thread(room_of, self._folder)

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        target = self._folder / path
        private_folder(target.parent)
        written = await self._write(path, regrouped(chunks, CHUNK_BYTES), CHUNK_BYTES)
        make_private(target)
        return written

    async def discard(self, path: str) -> int:
        freed = 0
        # obstore writes to ``name#1``, or the next number that is free, and then renames.
        staged = (self._folder / f"{path}#{number}" for number in itertools.count(1))
        for file in (self._folder / path, *itertools.takewhile(Path.exists, staged)):
            with contextlib.suppress(FileNotFoundError):
                freed += file.lstat().st_size
                file.unlink()
        return freed

    async def entries(self, folder: str) -> AsyncIterator[list[StoredBlob]]:
        yield await asyncio.to_thread(lambda: list(self._walk(folder)))

    def _walk(self, folder: str) -> Iterator[StoredBlob]:
        # Not obstore's list, which leaves out what is staged.
        try:
            found = os.scandir(self._folder / folder)
        except FileNotFoundError:
            return
        with found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        yield StoredBlob(f"{folder}/{entry.name}", status.st_size, status.st_mtime)

    async def _clear(self, path: str, error: Exception) -> Exception:
        if isinstance(error, FileNotFoundError):
            return BlobLost(f"The bytes of {path} are no longer in the blob store.")
        # obstore tells the system's error number in its text only.
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else 0
        if number in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull("The disk that holds the data folder is full: free some space.")
        if is_pressure(number):
            return UnderPressure(number)
        if "Requested range was invalid" in str(error):
            return BlobLost(f"The bytes of {path} are cut off.")
        return error
