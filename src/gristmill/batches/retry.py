"""Asking the rows of an ended batch again that have no answer: which they are, and the input of the batch that asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec

from gristmill.batches import lifecycle
from gristmill.batches.lines import LineSplitter
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, file_blob
from gristmill.wire.errors import ApiError

#: Read at a time; short enough for others to have their turn.
_CHUNK_BYTES = 1024 * 1024


class RetryInput(NamedTuple):
    """``files`` are to be added together with the batch; ``rows`` is how many there are, as far as is known."""

    input_file_id: str
    rows: int
    files: Sequence[FileRecord] = ()


class _Identified(msgspec.Struct):
    """A line of an input, output or error file, as far as it says which row it is."""

    custom_id: str


_decoder = msgspec.json.Decoder(_Identified)


@contextlib.asynccontextmanager
async def retrying(storage: Storage, batch: BatchRecord, file_id: str) -> AsyncIterator[RetryInput]:
    """The input of a batch that retries ``batch``, which is ``file_id`` where it is made for it; the bytes stay only if
    its files are added meanwhile. Raises ApiError 409 where nothing can be retried, and BlobLost."""
    if not lifecycle.is_terminal(batch.status):
        message = (
            f"Cannot retry a batch with status '{batch.status}': its rows are still being run. "
            "Wait for its end, or cancel it first."
        )
        raise ApiError(409, message, retry=False)
    if batch.in_progress_at is None and batch.error_file_id is None:
        # Its input was refused, perhaps by another engine than there is now: it is read again.
        source = await _kept(storage, batch.input_file_id, "input file")
        yield RetryInput(source.id, batch.total)
        return
    if batch.error_file_id is None:
        message = f"There is nothing to retry: every row of {batch.id} was answered."
        raise ApiError(409, message, code="nothing_to_retry", retry=False)
    source = await _kept(storage, batch.input_file_id, "input file")
    errors = await _kept(storage, batch.error_file_id, "error file, which says what to retry,")
    async with storage.new_blobs.begin(file_blob(file_id)) as write:
        unanswered = _Unanswered(storage, source, errors)
        size = await write(unanswered.lines())
        now = int(time.time())
        # As long as the input that it is a part of, which was to be kept so long after its upload.
        expires_at = None if source.expires_at is None else now + source.expires_at - source.created_at
        made = FileRecord(file_id, size, now, f"retry_of_{batch.id}.jsonl", "batch", expires_at, batch.key_id)
        yield RetryInput(file_id, unanswered.found, [made])


class _Unanswered:
    """The lines of an input whose rows are in an error file. Both are in input order, and are read side by side."""

    def __init__(self, storage: Storage, source: FileRecord, errors: FileRecord) -> None:
        self._storage = storage
        self._source = source
        self._errors = errors
        self.found = 0

    async def lines(self) -> AsyncIterator[bytes]:
        """Raises ApiError 409 where the files do not belong together."""
        ids = self._ids()
        wanted = await anext(ids, None)
        async for lines in _lines(self._storage, self._source):
            taken = []
            for line in lines:
                if wanted is None:
                    break
                if _decoder.decode(line).custom_id == wanted:
                    taken.append(line + b"\n")
                    wanted = await anext(ids, None)
            self.found += len(taken)
            yield b"".join(taken)
        if wanted is not None:
            raise ApiError(409, f"The rows of {self._errors.id} are not in {self._source.id}.", retry=False)

    async def _ids(self) -> AsyncIterator[str]:
        async for lines in _lines(self._storage, self._errors):
            for line in lines:
                yield _decoder.decode(line).custom_id


async def _lines(storage: Storage, file: FileRecord) -> AsyncIterator[list[bytes]]:
    splitter = LineSplitter(2**62)
    async for chunk in storage.blobs.stream(file_blob(file.id), chunk_bytes=_CHUNK_BYTES):
        yield [line.data or b"" for line in splitter.feed(chunk)]
        await asyncio.sleep(0)
    yield [line.data or b"" for line in splitter.finish()]


async def _kept(storage: Storage, file_id: str, what: str) -> FileRecord:
    """Raises ApiError 409 where it is gone."""
    file = await storage.metadata.files.get(file_id)
    if file is None or (file.expires_at is not None and file.expires_at <= time.time()):
        message = f"Cannot retry the batch: its {what} was deleted or has expired. Submit the rows as a new batch."
        raise ApiError(409, message, retry=False)
    return file
