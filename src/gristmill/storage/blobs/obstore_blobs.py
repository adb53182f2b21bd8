"""What a folder and an object store have in common, since obstore has one interface for both."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import obstore
from obstore.store import ObjectStore

from gristmill.storage.blobs.handover import Handover, ended
from gristmill.storage.errors import BlobLost
from gristmill.storage.pressure import patiently

T = TypeVar("T")

#: Bytes held at a time while a blob is streamed.
CHUNK_BYTES = 4 * 1024 * 1024


class ObstoreBlobs(ABC):
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @abstractmethod
    async def _clear(self, path: str, error: Exception) -> Exception:
        """The error to raise in place of obstore's: told apart by what is to be done about it."""

    async def size(self, path: str) -> int:
        async def head() -> int:
            size: int = (await obstore.head_async(self._store, path))["size"]
            return size

        return await self._asked(path, head)

    async def read(self, path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""

        async def get() -> bytes:
            found = await obstore.get_range_async(self._store, path, start=start, length=length)
            return found.to_bytes()

        found = await self._asked(path, get)
        if len(found) < length:
            raise shorter(path, start + length, start + len(found))
        return found

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        # obstore panics at a range that begins behind the end.
        end = max((start + length for start, length in ranges), default=0)
        if (size := await self.size(path)) < end:
            raise shorter(path, end, size)
        starts, lengths = [start for start, _ in ranges], [length for _, length in ranges]

        async def get() -> list[bytes]:
            # Ranges that are less than a megabyte apart are one request.
            found = await obstore.get_ranges_async(self._store, path, starts=starts, lengths=lengths)
            return [part.to_bytes() for part in found]

        return await self._asked(path, get)

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, chunk_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        size = await self.size(path)
        stop = size if end is None else end
        if size < stop:
            raise shorter(path, stop, size)
        async for chunk in self._stream(path, start, stop, chunk_bytes or CHUNK_BYTES):
            yield chunk

    async def _stream(self, path: str, start: int, stop: int, step: int) -> AsyncIterator[bytes]:
        for position in range(start, stop, step):
            yield await self.read(path, position, min(step, stop - position))

    async def delete(self, path: str) -> None:
        async def remove() -> None:
            await obstore.delete_async(self._store, path)

        try:
            await self._asked(path, remove)
        except BlobLost:
            pass

    async def _write(self, path: str, groups: AsyncIterator[bytes], part_bytes: int) -> int:
        """In parts, a few of which are held at a time; the number of bytes written."""
        handover = Handover()
        put = obstore.put_async(self._store, path, handover.chunks(), chunk_size=part_bytes, max_concurrency=2)
        putting = asyncio.ensure_future(put)
        written = 0
        try:
            async for group in groups:
                written += len(group)
                if not await handover.give(group, putting):
                    break
            handover.end()
            await self._cleared(path, asyncio.shield(putting))
        except BaseException:
            # obstore's own threads would go on writing after a cancellation: nobody may find the blob or a part of it
            # once this has returned.
            handover.cut_off()
            await ended(putting)
            raise
        return written

    async def _asked(self, path: str, ask: Callable[[], Awaitable[T]]) -> T:
        return await patiently(lambda: self._cleared(path, ask()))

    async def _cleared(self, path: str, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except Exception as error:
            if (clear := await self._clear(path, error)) is error:
                raise
            raise clear from error


def shorter(path: str, expected: int, found: int) -> BlobLost:
    return BlobLost(f"The bytes of {path} are cut off: there are {found:,}, and {expected:,} were stored.")
