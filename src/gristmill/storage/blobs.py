"""Blobs through obstore: a local folder here; S3, GCS and Azure are the same interface under another URL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import obstore
from obstore.store import LocalStore

from gristmill.storage.protocol import StorageError

#: Bytes held at a time while a blob is streamed.
CHUNK_BYTES = 4 * 1024 * 1024


def open_blobs(location: str) -> LocalBlobStore:
    """The store of another process, by its ``location``."""
    return LocalBlobStore(Path(location))


class LocalBlobStore:
    """Blobs as files below ``folder``. A blob appears under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
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
        written = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal written
            async for chunk in _regrouped(chunks):
                written += len(chunk)
                yield chunk

        with _clear_errors():
            await obstore.put_async(self._store, path, counted(), chunk_size=CHUNK_BYTES, max_concurrency=2)
        return written

    async def read(self, path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        with _clear_errors():
            found = await obstore.get_range_async(self._store, path, start=start, length=length)
        return found.to_bytes()

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, lengths = [start for start, _ in ranges], [length for _, length in ranges]
        with _clear_errors():
            found = await obstore.get_ranges_async(self._store, path, starts=starts, lengths=lengths)
        return [part.to_bytes() for part in found]

    async def stream(self, path: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        with _clear_errors():
            size: int = (await obstore.head_async(self._store, path))["size"]
        stop = size if end is None else min(end, size)
        for position in range(start, stop, CHUNK_BYTES):
            yield await self.read(path, position, min(CHUNK_BYTES, stop - position))

    async def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), _clear_errors():
            await obstore.delete_async(self._store, path)


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


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        text = str(error)
        if "os error 28" in text or "No space left" in text or "os error 122" in text:
            raise StorageError("The disk that holds the data folder is full: free some space.") from error
        raise
