"""Blobs as objects of S3 and what speaks its language, of Google's or of Azure's storage."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store, from_url

from gristmill.storage.blob_store import StoredBlob
from gristmill.storage.blobs.diagnosis import CREDENTIALS, Diagnosis, Unexplained, first_line
from gristmill.storage.blobs.handover import ended, regrouped
from gristmill.storage.blobs.obstore_blobs import CHUNK_BYTES, ObstoreBlobs, shorter
from gristmill.storage.blobs.unfinished_uploads import UnfinishedUploads
from gristmill.storage.disk_room import DiskRoom
from gristmill.storage.errors import BlobLost, StorageError
from gristmill.storage.pressure import may_pass
from gristmill.user_error import NotNow, UserError

SCHEMES = ("s3", "gs", "az")
#: A store takes at most 10,000 parts of a blob: 80 GB.
PART_BYTES = 8 * 1024 * 1024
#: Of a request: a part takes so long on a slow line, and a store that hangs is noticed then.
_TIMEOUT = timedelta(seconds=60)
#: What a store refuses for the moment, and connections that break, obstore tries again.
_RETRIES: Any = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    "retry_timeout": timedelta(seconds=30),
}
_LISTED_AT_ONCE = 1_000


class ObjectBlobStore(ObstoreBlobs):
    """Blobs below a prefix of a bucket. The credentials come from the environment, as obstore reads it. ``write`` sends
    what is larger than a part in parts, which the store puts together at the end."""

    def __init__(self, location: str) -> None:
        self._location = _checked(location)
        options: Any = {"timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=5), "allow_http": True}
        try:
            store = from_url(self._location, client_options=options, retry_config=_RETRIES)
        except Exception as error:
            raise UserError(
                f"The blob store {self._location} cannot be opened ({first_line(error)}): its settings come from the "
                f"environment, such as {CREDENTIALS[urlsplit(self._location).scheme]}."
            ) from None
        super().__init__(store)
        self._diagnosis = Diagnosis(store, self._location)
        self._unfinished = UnfinishedUploads(store) if isinstance(store, S3Store) else None

    @property
    def location(self) -> str:
        return self._location

    async def try_out(self) -> None:
        name, content = f"try/{secrets.token_hex(8)}", b"gristmill"

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        try:
            try:
                # A store that does not let one list answers that reading is not allowed, where a blob is not there.
                await self.size(name)
            except BlobLost:
                pass
            await self.write(name, chunks())
            await self.read(name, 0, len(content))
            _ = [found async for found in self.entries("try")]
            await self.discard(name)
        except StorageError as error:
            kind = NotNow if may_pass(error) else UserError
            raise kind(f"The blob store {self._location} cannot be used: {error}") from error

    async def room(self) -> DiskRoom | None:
        return None

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        groups = regrouped(chunks, PART_BYTES)
        first = await anext(groups, b"")
        if len(first) < PART_BYTES:
            await self._put(path, first)
            return len(first)

        async def all_groups() -> AsyncIterator[bytes]:
            yield first
            async for group in groups:
                yield group

        return await self._write(path, all_groups(), PART_BYTES)

    async def read(self, path: str, start: int, length: int) -> bytes:
        try:
            return await super().read(path, start, length)
        except Unexplained:
            # One that begins behind the end, it may be.
            if (size := await self.size(path)) < start + length:
                raise shorter(path, start + length, size) from None
            raise

    async def discard(self, path: str) -> int:
        # First, so that no write which was cut off comes to its end afterwards.
        freed = await self._unfinished.abort(path) if self._unfinished is not None else 0
        try:
            freed += await self.size(path)
        except BlobLost:
            return freed
        await self.delete(path)
        return freed

    async def entries(self, folder: str) -> AsyncIterator[list[StoredBlob]]:
        found = obstore.list(self._store, prefix=folder, chunk_size=_LISTED_AT_ONCE)
        try:
            async for some in found:
                yield [StoredBlob(each["path"], each["size"], each["last_modified"].timestamp()) for each in some]
        except Exception as error:
            raise await self._clear(folder, error) from error

    async def _put(self, path: str, content: bytes) -> None:
        putting = asyncio.ensure_future(obstore.put_async(self._store, path, content, use_multipart=False))
        try:
            await self._cleared(path, asyncio.shield(putting))
        except BaseException:
            await ended(putting)
            raise

    async def _stream(self, path: str, start: int, stop: int, step: int) -> AsyncIterator[bytes]:
        """The next bytes are on their way while these are used: a request takes longer than the bytes it brings."""
        position, window = start, step
        ahead: asyncio.Task[bytes] | None = None
        try:
            while position < stop:
                length = min(window, stop - position)
                data = await (ahead or self.read(path, position, length))
                position += length
                # Nothing ahead for whoever wants the first piece only.
                began = position - length > start
                window = max(step, min(2 * window, CHUNK_BYTES))
                ahead = None
                if began and position < stop:
                    ahead = asyncio.create_task(self.read(path, position, min(window, stop - position)))
                for offset in range(0, length, step):
                    yield data[offset : offset + step]
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _clear(self, path: str, error: Exception) -> Exception:
        return await self._diagnosis.of(path, error)


def _checked(location: str) -> str:
    """Without the slashes at its end. Raises UserError for what names no place, or holds more than a place."""
    url = urlsplit(location)
    if "@" in url.netloc or url.query or url.fragment:
        # Not shown: there may be a secret in it.
        raise UserError(
            "--blobs takes SCHEME://BUCKET/PREFIX and nothing more: credentials and other settings come from the "
            "environment."
        )
    if not url.netloc:
        raise UserError(f"The blob store '{location}' names no bucket: --blobs takes {url.scheme}://BUCKET/PREFIX.")
    if any(part in ("", ".", "..") for part in url.path.strip("/").split("/")) and url.path.strip("/"):
        raise UserError(f"The blob store '{location}' has a part '..', '.' or none between two slashes in its prefix.")
    return location.rstrip("/")
