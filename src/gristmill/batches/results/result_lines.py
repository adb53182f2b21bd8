"""The lines of a batch's output and error files as far as there are any, before its end and after it, with those of its
retries: each row at most once, and in exactly one of the two once all have ended.

Lines come in input order, those of a retry behind those of the batch that it retries. What has been read once stays,
because a result is final. So whoever names the last row he has is told those behind it, also where the batch has ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

from gristmill.batches import lifecycle
from gristmill.batches.results.result_files import (
    PAGE_BYTES,
    SEARCH_BYTES,
    custom_id_field,
    has_field,
    line_numbered,
    lines_from,
)
from gristmill.storage.errors import BlobLost, UnknownCursor
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, file_blob
from gristmill.storage.row_records import RowFilter, RowOutcome, SeenRow
from gristmill.wire.errors import not_found

Kind = Literal["output", "error"]

#: Rows of the database in memory at a time.
_PAGE_ROWS = 2_000


async def chain_of(storage: Storage, batch: BatchRecord) -> list[BatchRecord]:
    """The batch and its retries, one after another."""
    chain = [batch]
    while (later := chain[-1].retried_by) is not None:
        found = await storage.metadata.batches.get(later)
        if found is None:
            break
        chain.append(found)
    return chain


async def result_lines(
    storage: Storage, batch: BatchRecord, kind: Kind, after: str | None = None
) -> AsyncIterator[bytes]:
    """Some lines at a time, from behind that of the row with the custom_id ``after``. Raises ApiError 404 where a file
    that holds some is gone, UnknownCursor and BlobLost."""
    chain = [each for each in await chain_of(storage, batch) if not _refused(each)]
    # What a batch has not answered is what its retry asks: only the last one's errors are still true.
    parts = [_Part(storage, each, kind) for each in (chain if kind == "output" else chain[-1:])]
    for part in parts:
        await part.check()
    if after is not None:
        while parts and not await parts[0].skip_to(after):
            del parts[0]
        if not parts:
            raise UnknownCursor(after)
    for part in parts:
        async for lines in part.lines():
            yield lines


def _refused(batch: BatchRecord) -> bool:
    """Nothing of it ran, and it has no file."""
    return batch.status == lifecycle.FAILED and batch.in_progress_at is None


class _Part:
    """The lines of one batch. It may end at any moment, and its rows go from the database to its files then."""

    def __init__(self, storage: Storage, batch: BatchRecord, kind: Kind) -> None:
        self._storage = storage
        self._batch = batch
        self._kind = kind
        self._outcome: RowOutcome = "succeeded" if kind == "output" else "failed"
        #: What has been read: up to this line of the input, or up to this offset in the file.
        self._line = 0
        self._offset: int | None = None

    async def check(self) -> None:
        """Raises ApiError 404."""
        if lifecycle.is_terminal(self._batch.status):
            await self._file()

    async def skip_to(self, custom_id: str) -> bool:
        """Read up to the row's line; False where it is not here."""
        if not lifecycle.is_terminal(self._batch.status):
            seen = await self._seen(RowFilter(custom_id, outcome=self._outcome), 0, 1)
            if await self._goes_on():
                self._line = seen[0].row.line if seen else 0
                return bool(seen)
        file = await self._file()
        name = custom_id_field(custom_id, prefix=False)
        if file is not None:
            async for part in lines_from(self._storage, file, 0, SEARCH_BYTES, name):
                for line in part.lines:
                    if has_field(line.data, name):
                        self._offset = line.after
                        return True
        return False

    async def lines(self) -> AsyncIterator[bytes]:
        while not lifecycle.is_terminal(self._batch.status):
            seen = await self._seen(RowFilter(outcome=self._outcome), self._line, _PAGE_ROWS)
            # Rows of an ended batch are dropped, some at a time: what was read before its end is whole.
            if not await self._goes_on():
                break
            if not seen:
                return
            self._line = seen[-1].row.line
            yield b"".join((each.payload or b"") + b"\n" for each in seen)
        file = await self._file()
        if file is not None:
            begin = await self._begin(file)
            async for chunk in self._storage.blobs.stream(file_blob(file.id), begin, file.bytes, PAGE_BYTES):
                yield chunk

    async def _begin(self, file: FileRecord) -> int:
        if self._offset is not None:
            return self._offset
        if self._line == 0:
            return 0
        places = await self._storage.metadata.rows.places(self._batch.seq)
        of_file = [each for each in places if each.succeeded == (self._kind == "output")]
        line = await line_numbered(self._storage, self._batch.id, file, of_file, self._line)
        if line is None:
            raise BlobLost(f"Line {self._line} of {self._batch.input_file_id} is not in {file.id}.")
        return line.after

    async def _seen(self, wanted: RowFilter, after: int, limit: int) -> Sequence[SeenRow]:
        rows = self._storage.metadata.rows
        return await rows.seen(self._batch.seq, wanted, after, await rows.last_line(self._batch.seq), limit)

    async def _goes_on(self) -> bool:
        batch = await self._storage.metadata.batches.get(self._batch.id)
        if batch is None:
            raise BlobLost(f"{self._batch.id} was deleted.")
        self._batch = batch
        return not lifecycle.is_terminal(batch.status)

    async def _file(self) -> FileRecord | None:
        """None where the batch has no such line. Raises ApiError 404 where the file is gone."""
        file_id = self._batch.output_file_id if self._kind == "output" else self._batch.error_file_id
        if file_id is None:
            return None
        file = await self._storage.metadata.files.get(file_id)
        if file is None:
            raise not_found(f"The {self._kind} file of {self._batch.id} was deleted, or has expired.")
        return file
