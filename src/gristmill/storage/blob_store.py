"""The seam of blobs: bytes by path, and how they are stored together with the record that names them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from gristmill.storage.disk_room import DiskRoom


class StoredBlob(NamedTuple):
    """What a store lists: ``path`` is the blob's, or that of a write under way (``blob#1``). ``modified`` in Unix
    seconds."""

    path: str
    bytes: int
    modified: float


class BlobStore(Protocol):
    """Bytes by path. A blob exists whole or not at all."""

    @property
    def location(self) -> str:
        """With which another process opens the same store (``blobs.open.open_blobs``; no secret in it)."""
        ...

    async def try_out(self) -> None:
        """Whether it can be written, read, listed and deleted from now on. Raises UserError, in a sentence."""
        ...

    async def room(self) -> DiskRoom | None:
        """Of the disk that the bytes are on; None where that is no disk of this machine. Raises OSError."""
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

    def entries(self, folder: str) -> AsyncIterator[list[StoredBlob]]:
        """What there is below ``folder``, many at a time."""
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
