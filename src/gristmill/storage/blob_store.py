"""The seam of blobs: bytes by path, and how they are stored together with the record that names them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class BlobStore(Protocol):
    """Bytes by path. A blob exists whole or not at all."""

    @property
    def location(self) -> str:
        """With which another process opens the same store (``storage.blobs.open_blobs``)."""
        ...

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a stream; the number of bytes written. An error of ``chunks`` is raised and nothing is kept."""
        ...

    async def size(self, path: str) -> int:
        """In bytes. Raises BlobLost."""
        ...

    async def read(self, path: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes. Raises BlobLost."""
        ...

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several (start, length) ranges, neighbours fetched together. Raises BlobLost."""
        ...

    def stream(
        self, path: str, start: int = 0, end: int | None = None, chunk_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        """Chunks of some megabytes, or of ``chunk_bytes``, from ``start`` up to, not including, ``end``. Raises
        BlobLost, where the blob is too short before the first chunk."""
        ...

    async def delete(self, path: str) -> None:
        """No error where there is nothing."""
        ...

    async def discard(self, path: str) -> int:
        """Delete the blob and what writes of it that were cut off have left; the number of bytes freed. Only while
        nobody writes it."""
        ...


#: Writes a stream as the blob it was made for; the number of bytes written.
WriteBlob = Callable[[AsyncIterator[bytes]], Awaitable[int]]


class NewBlobs(Protocol):
    """Storing bytes together with the record that names them."""

    def begin(self, path: str) -> AbstractAsyncContextManager[WriteBlob]:
        """For as long as it takes to write the blob and to add its record. If there is no record at the end, however it
        comes, the bytes are freed: then, or by ``free_unnamed``."""
        ...

    async def free_unnamed(self) -> tuple[int, int]:
        """Free the bytes that no record names and nobody is about to: how many blobs, and how many bytes."""
        ...
