"""Writing a batch's files from what is stored: in input order, repeatable, a page of rows in memory at a time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from gristmill.batches import lifecycle, output_lines
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, Lease, file_blob
from gristmill.storage.row_records import ResultPlace
from gristmill.wire.batch import BatchError, LineError

_PAGE_ROWS = 2_000
#: Result files live this long (seconds) unless the batch says otherwise.
FILE_LIFETIME = 30 * 86400


_WHY_NEVER_RUN = {
    lifecycle.CANCELLED: output_lines.CANCELLED,
    lifecycle.EXPIRED: output_lines.EXPIRED,
    lifecycle.FAILED: output_lines.INPUT_LOST,
}


async def finalize(
    storage: Storage,
    batch: BatchRecord,
    lease: Lease,
    status: str,
    now: int,
    errors: list[BatchError] | None = None,
    ended: Callable[[], None] = lambda: None,
) -> bool:
    """End the batch as ``status``: every row goes into exactly one of its two files. ``errors`` say why it failed.
    ``ended`` is called as soon as it has, before anything else can come between.
    Raises LeaseLost where the batch is another's by now.

    False if the batch's status changed meanwhile; then nothing has ended, and it may simply be done again.
    """
    unrun = _WHY_NEVER_RUN.get(status, output_lines.EXPIRED)
    await storage.metadata.rows.update_statistics(lease)
    async with (
        _new_file(storage, batch, lease.owner, "output", now) as write_output,
        _new_file(storage, batch, lease.owner, "error", now) as write_error,
    ):
        places: list[ResultPlace] = []
        output = await write_output(_placed(storage, batch, True, _output_pages(storage, batch), places))
        error = await write_error(_placed(storage, batch, False, _error_pages(storage, batch, unrun), places))
        await storage.metadata.rows.place(lease, places)
        files = [file for file in (output, error) if file is not None]
        changes = lifecycle.ended(status, output.id if output else None, error.id if error else None, now)
        if errors:
            changes["errors"] = errors
        batches = storage.metadata.batches
        if not await batches.change(batch.id, changes, expected=batch.status, lease=lease, files=files):
            return False
        ended()
    await storage.metadata.rows.clear_ended(batch.seq)
    return True


@contextlib.asynccontextmanager
async def _new_file(
    storage: Storage, batch: BatchRecord, owner: str, kind: str, now: int
) -> AsyncIterator[Callable[[AsyncIterator[bytes]], Awaitable[FileRecord | None]]]:
    """Writes lines as one result file; None if there is no line.

    Its id is the same at every try of one owner, and another's for another owner: who has lost the batch and does not
    know it yet cannot write over, or free, the bytes of whoever ended it.
    """
    file_id = output_lines.stable_id("file-", batch.id, kind, owner)
    lifetime = batch.output_file_lifetime or FILE_LIFETIME
    async with storage.new_blobs.begin(file_blob(file_id)) as write_blob:

        async def write(lines: AsyncIterator[bytes]) -> FileRecord | None:
            size = await write_blob(lines)
            filename = f"{batch.id}_{kind}.jsonl"
            if not size:
                return None
            return FileRecord(file_id, size, now, filename, "batch_output", now + lifetime, batch.key_id)

        yield write


#: The first line of a page, and the page.
_Pages = AsyncIterator[tuple[int, bytes]]


async def _placed(
    storage: Storage, batch: BatchRecord, succeeded: bool, pages: _Pages, places: list[ResultPlace]
) -> AsyncIterator[bytes]:
    """The pages, with a place for each: by these, rows are found in the files once the database has forgotten them."""
    offset = 0
    async for line, page in pages:
        input_offsets = await storage.metadata.rows.offsets(batch.seq, [line])
        places.append(ResultPlace(succeeded, line, offset, input_offsets[line]))
        offset += len(page)
        yield page


async def _output_pages(storage: Storage, batch: BatchRecord) -> _Pages:
    after = 0
    while page := await storage.metadata.rows.succeeded(batch.seq, after, _PAGE_ROWS):
        after = page[-1][0]
        yield page[0][0], b"".join(payload + b"\n" for _, payload in page)


async def _error_pages(storage: Storage, batch: BatchRecord, unrun: LineError) -> _Pages:
    after = 0
    while page := await storage.metadata.rows.not_succeeded(batch.seq, after, _PAGE_ROWS):
        after = page[-1].line
        lines = (row.payload or output_lines.never_ran(batch.id, row.line, row.custom_id, unrun) for row in page)
        yield page[0].line, b"".join(line + b"\n" for line in lines)
