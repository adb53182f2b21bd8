"""Receiving bytes that will be a file: measured, limited, and looked at while they stream by."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator

from gristmill.batches.lines import BOM
from gristmill.storage.blob_store import WriteBlob
from gristmill.storage.errors import OverLimit
from gristmill.storage.scope import Room
from gristmill.wire.errors import ApiError, invalid_value, too_large
from gristmill.wire.files import UPLOAD_PURPOSES
from gristmill.wire.json import parses_as_json

#: 8 GB, what the Uploads API of the contract allows.
MAX_FILE_BYTES = 8 * 1024**3
#: A first line longer than this is left to the batch's validation.
_MAX_FIRST_LINE = 1024 * 1024
DEFAULT_BATCH_LIFETIME = 2_592_000


class IncomingFile:
    """Streams into a blob; afterwards knows its size, whether its first line is JSON and, where ``hashing`` was given,
    the digest of its bytes."""

    def __init__(self, write: WriteBlob, room: Room | None, hashing: hashlib._Hash | None = None) -> None:
        self._room = room
        self._write = write
        self._hashing = hashing
        self.bytes = 0
        self._first_line = bytearray()
        self._first_line_ended = False

    async def receive(self, chunks: AsyncIterator[bytes]) -> IncomingFile:
        """Raises ApiError 413, OverLimit; then nothing is kept."""
        self.bytes = await self._write(self._watched(chunks))
        return self

    def digest(self) -> str | None:
        return None if self._hashing is None else self._hashing.hexdigest()

    @property
    def first_line(self) -> bytes:
        """Or what was kept of it, where it is very long; without a byte order mark."""
        return bytes(self._first_line).removeprefix(BOM).strip()

    def check(self, purpose: str) -> None:
        """Refuse what cannot be such a file: the same cases that OpenAI refuses at upload."""
        check_purpose(purpose)
        if purpose == "batch" and not self._starts_as_jsonl():
            raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")

    def _starts_as_jsonl(self) -> bool:
        if len(self._first_line) > _MAX_FIRST_LINE:
            return True
        line = self.first_line
        # A blank first line says nothing yet; a file of nothing but blank lines is found by validation.
        return self.bytes > 0 and (not line or parses_as_json(line))

    async def _watched(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                message = f"File is too large. The maximum is {MAX_FILE_BYTES:,} bytes."
                raise too_large(message, param="file", code="file_too_large")
            if self._room is not None and self._room.used + size > self._room.limit:
                # At once: what would be refused in the end would fill the disk until then.
                raise OverLimit("bytes", *self._room, more=size)
            if not self._first_line_ended:
                self._look(chunk)
            if self._hashing is not None:
                self._hashing.update(chunk)
            yield chunk

    def _look(self, chunk: bytes) -> None:
        line, newline, _ = chunk.partition(b"\n")
        self._first_line += line
        self._first_line_ended = bool(newline) or len(self._first_line) > _MAX_FIRST_LINE


def new_file_id() -> str:
    return "file-" + secrets.token_hex(16)


def check_purpose(purpose: str) -> None:
    if purpose not in UPLOAD_PURPOSES:
        supported = ", ".join(f"'{each}'" for each in UPLOAD_PURPOSES)
        raise invalid_value("purpose", purpose, supported)


def expiry(purpose: str, created_at: int, lifetime: int | None) -> int | None:
    """When a file expires: batch inputs after 30 days by default, others never."""
    if lifetime is None and purpose == "batch":
        lifetime = DEFAULT_BATCH_LIFETIME
    return None if lifetime is None else created_at + lifetime
