"""Writing a batch's files from what is stored: in input order, repeatable, a page of rows in memory at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gristmill.batches import lifecycle, output_lines
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, file_blob
from gristmill.wire.batch import LineError

_PAGE_ROWS = 2_000
#: Result files live this long (seconds) unless the batch says otherwise.
FILE_LIFETIME = 30 * 86400


async def finalize(storage: Storage, batch: BatchRecord, status: str, now: int) -> bool:
    """End the batch as ``status``: every row goes into exactly one of its two files.

    False if the batch's status changed meanwhile; then nothing has ended, and it may simply be done again.
    """
    unrun = output_lines.CANCELLED if status == lifecycle.CANCELLED else output_lines.EXPIRED
    output = await _write(storage, batch, "output", now, _output_lines(storage, batch))
    error = await _write(storage, batch, "error", now, _error_lines(storage, batch, unrun))
    files = [file for file in (output, error) if file is not None]
    changes = lifecycle.ended(status, output.id if output else None, error.id if error else None, now)
    if not await storage.metadata.batches.change(batch.id, changes, expected=batch.status, files=files):
        return False
    await storage.metadata.rows.clear(batch.seq)
    return True


async def _write(
    storage: Storage, batch: BatchRecord, kind: str, now: int, lines: AsyncIterator[bytes]
) -> FileRecord | None:
    """One result file, under an id that is the same at every try; None if it has no line."""
    file_id = output_lines.stable_id("file-", batch.id, kind)
    size = await storage.blobs.write(file_blob(file_id), lines)
    if size == 0:
        await storage.blobs.delete(file_blob(file_id))
        return None
    return FileRecord(
        id=file_id,
        bytes=size,
        created_at=now,
        filename=f"{batch.id}_{kind}.jsonl",
        purpose="batch_output",
        expires_at=now + (batch.output_file_lifetime or FILE_LIFETIME),
    )


async def _output_lines(storage: Storage, batch: BatchRecord) -> AsyncIterator[bytes]:
    after = 0
    while page := await storage.metadata.rows.succeeded(batch.seq, after, _PAGE_ROWS):
        after = page[-1][0]
        yield b"".join(payload + b"\n" for _, payload in page)


async def _error_lines(storage: Storage, batch: BatchRecord, unrun: LineError) -> AsyncIterator[bytes]:
    after = 0
    while page := await storage.metadata.rows.not_succeeded(batch.seq, after, _PAGE_ROWS):
        after = page[-1].line
        yield b"".join(
            (row.payload or output_lines.never_ran(batch.id, row.line, row.custom_id, unrun)) + b"\n" for row in page
        )
