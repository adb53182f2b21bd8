"""Blobs and their records: bytes that a kill, an error or a client who went away left without a record are found."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gristmill.storage.blob_store import BlobStore, WriteBlob
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import BlobWrite


class AnnouncedBlobs:
    """Every write is announced in the database before its first byte, and the announcement goes with the transaction
    that adds the record. What is announced by a server that is dead, or given up by this one, is nobody's; what others
    that are there announced is theirs."""

    def __init__(self, metadata: MetadataStore, blobs: BlobStore, server_id: str) -> None:
        self._writes = metadata.blob_writes
        self._blobs = blobs
        self._owner = server_id
        #: Given up by this process, and not freed yet.
        self._given_up: set[str] = set()
        #: Held while bytes are freed: the same path may be about to be written again.
        self._freeing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def begin(self, path: str) -> AsyncIterator[WriteBlob]:
        try:
            async with self._freeing:
                self._given_up.discard(path)
                await self._writes.begin(path, self._owner)
            yield lambda chunks: self._blobs.write(path, chunks)
        finally:
            # Noted first: what is cancelled or fails here is tried again by ``free_unnamed``, and hides no other error.
            self._given_up.add(path)
            with contextlib.suppress(Exception):
                await self._free_given_up(path)

    async def free_unnamed(self) -> tuple[int, int]:
        freed = [await self._free_given_up(path) for path in list(self._given_up)]
        for write in await self._writes.of_the_dead(self._owner):
            async with self._freeing:
                freed.append(await self._free_of_the_dead(write))
        found = [size for size in freed if size is not None]
        return len(found), sum(found)

    async def _free_given_up(self, path: str) -> int | None:
        async with self._freeing:
            if path not in self._given_up:
                return None
            freed = None
            if await self._writes.under_way(path, self._owner):
                freed = await self._blobs.discard(path)
                await self._writes.end(path, self._owner)
            self._given_up.discard(path)
            return freed

    async def _free_of_the_dead(self, write: BlobWrite) -> int | None:
        """The bytes freed; None where a record names the blob, or another owner has begun it anew."""
        if write.freed:
            # By now its owner is dead for good. What it, or a kill, has left since is freed before that is forgotten.
            freed = await self._blobs.discard(write.path)
            await self._writes.end(write.path, write.owner)
            return freed or None
        # First of all: its owner may be no more than slow, and about to add the record.
        if not await self._writes.give_up(write.path, write.owner):
            return None
        freed = await self._blobs.discard(write.path)
        await self._writes.note_freed(write.path, write.owner)
        return freed
