"""Blobs through obstore: a local folder here; S3, GCS and Azure are the same interface under another URL."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import obstore
from obstore.store import LocalStore

from gristmill.storage.errors import BlobLost, DiskFull
from gristmill.storage.pressure import UnderPressure, is_pressure, patiently
from gristmill.storage.private import make_private, private_folder

#: Bytes held at a time while a blob is streamed.
CHUNK_BYTES = 4 * 1024 * 1024


def open_blobs(location: str) -> LocalBlobStore:
    """The store of another process, by its ``location``."""
    return LocalBlobStore(Path(location))


class LocalBlobStore:
    """Blobs as files below ``folder``, for nobody else to read. A blob appears under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        private_folder(folder)
        self._folder = folder
        self._store = LocalStore(folder)

    @property
    def location(self) -> str:
        return str(self._folder)

    def remove_unfinished(self) -> None:
        """Drop what writes cut off by a kill left behind (``name#1``); only while nothing is being written."""
        for path in self._folder.rglob("*#*"):
            path.unlink(missing_ok=True)

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        target = self._folder / path
        private_folder(target.parent)
        handover = _Handover()
        put = obstore.put_async(self._store, path, handover.chunks(), chunk_size=CHUNK_BYTES, max_concurrency=2)
        putting = asyncio.ensure_future(put)
        written = 0
        try:
            async for chunk in _regrouped(chunks):
                written += len(chunk)
                if not await handover.give(chunk, putting):
                    break
            handover.end()
            with _clear_errors(path):
                await asyncio.shield(putting)
            make_private(target)
        except BaseException:
            # obstore's own threads would go on writing after a cancellation: nobody may find the blob or a part of it
            # once this has returned.
            handover.cut_off()
            await _ended(putting)
            raise
        return written

    async def size(self, path: str) -> int:
        async def head() -> int:
            with _clear_errors(path):
                size: int = (await obstore.head_async(self._store, path))["size"]
                return size

        return await patiently(head)

    async def read(self, path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""

        async def get() -> bytes:
            with _clear_errors(path):
                found = await obstore.get_range_async(self._store, path, start=start, length=length)
                return found.to_bytes()

        found = await patiently(get)
        if len(found) < length:
            raise _shorter(path, start + length, start + len(found))
        return found

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        # obstore panics at a range that begins behind the end.
        end = max((start + length for start, length in ranges), default=0)
        if (size := await self.size(path)) < end:
            raise _shorter(path, end, size)
        starts, lengths = [start for start, _ in ranges], [length for _, length in ranges]

        async def get() -> list[bytes]:
            with _clear_errors(path):
                found = await obstore.get_ranges_async(self._store, path, starts=starts, lengths=lengths)
                return [part.to_bytes() for part in found]

        return await patiently(get)

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, chunk_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        step = chunk_bytes or CHUNK_BYTES
        size = await self.size(path)
        stop = size if end is None else end
        if size < stop:
            raise _shorter(path, stop, size)
        for position in range(start, stop, step):
            yield await self.read(path, position, min(step, stop - position))

    async def delete(self, path: str) -> None:
        async def remove() -> None:
            with contextlib.suppress(BlobLost), _clear_errors(path):
                await obstore.delete_async(self._store, path)

        await patiently(remove)

    async def discard(self, path: str) -> int:
        freed = 0
        # obstore writes to ``name#1``, or the next number that is free, and then renames.
        staged = (self._folder / f"{path}#{number}" for number in itertools.count(1))
        for file in (self._folder / path, *itertools.takewhile(Path.exists, staged)):
            with contextlib.suppress(FileNotFoundError):
                freed += file.lstat().st_size
                file.unlink()
        return freed


class _CutOff(Exception):
    """Ends a write in the middle."""


class _Handover:
    """Chunks on their way from a writer to obstore, one at a time; the rest can be withheld at any moment."""

    def __init__(self) -> None:
        self._chunk: bytes | None = None
        self._given = asyncio.Event()
        self._taken = asyncio.Event()
        self._ended = False
        self._cut_off = False

    async def give(self, chunk: bytes, taker: asyncio.Future[Any]) -> bool:
        """Waits until the chunk is taken; False where ``taker`` has ended instead."""
        self._taken.clear()
        self._chunk = chunk
        self._given.set()
        taken = asyncio.ensure_future(self._taken.wait())
        try:
            await asyncio.wait((taken, taker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()
        return not taker.done()

    def end(self) -> None:
        self._ended = True
        self._given.set()

    def cut_off(self) -> None:
        self._cut_off = True
        self._given.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            await self._given.wait()
            self._given.clear()
            if self._cut_off:
                raise _CutOff
            if self._chunk is not None:
                chunk, self._chunk = self._chunk, None
                self._taken.set()
                yield chunk
            elif self._ended:
                return


async def _ended(task: asyncio.Future[Any]) -> None:
    """Waits for the end of ``task``, whatever it is and however often this is cancelled meanwhile."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


async def _regrouped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Network chunks gathered into a few megabytes: each one crosses into the blob store's runtime."""
    group: list[bytes] = []
    size = 0
    async for chunk in chunks:
        group.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def _shorter(path: str, expected: int, found: int) -> BlobLost:
    return BlobLost(f"The bytes of {path} are cut off: there are {found:,}, and {expected:,} were stored.")


@contextlib.contextmanager
def _clear_errors(path: str) -> Iterator[None]:
    """Errors by what is to be done about them. obstore tells the system's error number in its text only."""
    try:
        yield
    except FileNotFoundError as error:
        raise BlobLost(f"The bytes of {path} are no longer in the blob store.") from error
    except Exception as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else 0
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("The disk that holds the data folder is full: free some space.") from error
        if is_pressure(number):
            raise UnderPressure(number) from error
        if "Requested range was invalid" in str(error):
            raise BlobLost(f"The bytes of {path} are cut off.") from error
        raise
