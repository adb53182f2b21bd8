"""A batch's rows, a page at a time, from wherever they are: the database while it runs, its files once it has ended.

Nothing here takes long, however large the batch is: what must be looked for is looked for so many milliseconds at a
time, and a page that is not full says where to look on.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from gristmill.batches import lifecycle
from gristmill.batches.results.causes import cause_of
from gristmill.batches.results.result_files import (
    PAGE_BYTES,
    SEARCH_BYTES,
    FilePart,
    LineNumbers,
    custom_id_field,
    has_field,
    line_numbered,
    lines_from,
    offset_before,
    request_at,
)
from gristmill.batches.results.row_view import RowView, read_line, waiting
from gristmill.storage.errors import BlobLost
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, file_blob
from gristmill.storage.row_records import (
    ResultPlace,
    RowFilter,
    RowOutcome,
    SeenRow,
)

#: For one page; the rest of the 200 ms that a page may take is for all else.
SEARCH_SECONDS = 0.1
#: Rows of the database looked at between two looks at the clock.
_STEP_LINES = 20_000
_REQUEST_SEARCH_BYTES = 256 * 1024 * 1024
_PLACE = re.compile(r"([loe])(\d{1,18})")


class Wanted(NamedTuple):
    """Which rows: None for any. ``prefix``: ``custom_id`` is only how it begins. ``outcome``: succeeded, failed (which
    includes those that never ran), or waiting; ``cause``: the key of a failure's cause."""

    custom_id: str | None = None
    prefix: bool = False
    outcome: RowOutcome | None = None
    cause: str | None = None


class PlacedRow(NamedTuple):
    """``place`` names the row in an address: l12 by the line of the input, o12 and e12 by the offset in the output or
    error file, where the line is not known."""

    place: str
    view: RowView


class ResultsPage(NamedTuple):
    """``more``: from where to go on; None at the end. ``searched``: the share of the batch that was looked at where
    time was up before the page was full, else None."""

    rows: list[PlacedRow]
    more: str | None
    searched: float | None = None


class ResultsGone(Exception):
    """The files that held the results are not there any more."""


class ResultsReader:
    def __init__(self, storage: Storage, seconds: float = SEARCH_SECONDS) -> None:
        """``seconds``: how long a call may look for rows."""
        self._storage = storage
        self._seconds = seconds

    async def page(self, batch: BatchRecord, wanted: Wanted, start: str | None, limit: int) -> ResultsPage:
        """``start`` is an earlier page's ``more``, None for the beginning. Raises ResultsGone."""
        if lifecycle.is_terminal(batch.status):
            return await self._file_page(batch, wanted, start, limit)
        found = await self._database_page(batch, wanted, start, limit)
        now = await self._storage.metadata.batches.get(batch.id)
        if now is None or not lifecycle.is_terminal(now.status):
            return found
        # It has ended meanwhile, and its rows may have gone while they were read.
        return await self._file_page(now, wanted, start, limit)

    async def row(self, batch: BatchRecord, place: str) -> RowView | None:
        """None where there is no such row. Raises ResultsGone."""
        kind, number = _parsed(place)
        if kind == "l" and not lifecycle.is_terminal(batch.status):
            seen = await self._storage.metadata.rows.seen(batch.seq, RowFilter(), number - 1, number, 1)
            return _of_seen(seen[0]) if seen else None
        places = await self._storage.metadata.rows.places(batch.seq)
        for file_kind, file in await self._files(batch):
            of_file = _of_file(places, file_kind)
            if kind == "l":
                found = await line_numbered(self._storage, batch.id, file, of_file, number)
                if found is not None:
                    return read_line(found.data, number)
            elif kind == file_kind:
                async for part in lines_from(self._storage, file, number, PAGE_BYTES):
                    if part.lines:
                        return read_line(part.lines[0].data, LineNumbers(batch.id, of_file).of(part.lines[0]))
        return None

    async def request(self, batch: BatchRecord, line: int) -> bytes | None:
        """The row's line of the input; None where it is not there any more."""
        try:
            seen = []
            if not lifecycle.is_terminal(batch.status):
                seen = await self._storage.metadata.rows.seen(batch.seq, RowFilter(), line - 1, line, 1)
            if seen:
                row = seen[0].row
                return await self._storage.blobs.read(file_blob(batch.input_file_id), row.offset, row.length)
            places = await self._storage.metadata.rows.places(batch.seq)
            return await request_at(self._storage, batch, places, line, _REQUEST_SEARCH_BYTES)
        except BlobLost:
            return None

    async def _database_page(self, batch: BatchRecord, wanted: Wanted, start: str | None, limit: int) -> ResultsPage:
        rows = self._storage.metadata.rows
        last, after = await rows.last_line(batch.seq), 0 if start is None else _parsed(start)[1]
        outcome = "failed" if wanted.cause is not None else wanted.outcome
        row_filter = RowFilter(wanted.custom_id, wanted.prefix, outcome)
        found: list[PlacedRow] = []
        # What an index leads to needs no steps.
        direct = wanted.custom_id is None and outcome in (None, "failed")
        until = time.monotonic() + self._seconds
        while after < last:
            upto = last if direct else min(after + _STEP_LINES, last)
            seen = await rows.seen(batch.seq, row_filter, after, upto, limit + 1 - len(found))
            full = len(seen) == limit + 1 - len(found)
            after = seen[-1].row.line if full else upto
            found += [
                PlacedRow(f"l{each.row.line}", view)
                for each, view in zip(seen, map(_of_seen, seen), strict=True)
                if wanted.cause is None or _has_cause(view, wanted.cause)
            ]
            if len(found) > limit:
                return ResultsPage(found[:limit], found[limit - 1].place)
            if time.monotonic() >= until and after < last:
                return ResultsPage(found, f"l{after}", after / last)
        return ResultsPage(found, None)

    async def _file_page(self, batch: BatchRecord, wanted: Wanted, start: str | None, limit: int) -> ResultsPage:
        kinds = {"succeeded": "o", "failed": "e", None: "oe"}.get(wanted.outcome, "")
        if wanted.cause is not None:
            kinds = "e"
        files = [(kind, file) for kind, file in await self._files(batch) if kind in kinds]
        places = await self._storage.metadata.rows.places(batch.seq)
        first, offset = _parsed(start) if start is not None else ("", 0)
        # By its line where the batch has ended since that page was shown.
        shown = offset if first == "l" else 0
        if first == "e":
            files = [each for each in files if each[0] == "e"]
        size, before = sum(file.bytes for _, file in files) or 1, 0
        found: list[PlacedRow] = []
        until = time.monotonic() + self._seconds
        field = None if wanted.custom_id is None else custom_id_field(wanted.custom_id, wanted.prefix)
        for kind, file in files:
            of_file = _of_file(places, kind)
            numbers = LineNumbers(batch.id, of_file)
            begin = offset if kind == first else offset_before(of_file, shown)
            async for part in self._parts(file, begin, field, wanted.cause is not None):
                for line in part.lines:
                    if field is not None and not has_field(line.data, field):
                        continue
                    if wanted.cause is not None and not _has_cause(read_line(line.data), wanted.cause):
                        continue
                    number = numbers.of(line)
                    if number is not None and number <= shown:
                        continue
                    if len(found) == limit:
                        return ResultsPage(found, f"{kind}{line.offset}")
                    view = read_line(line.data, number)
                    place = f"l{view.line}" if view.line is not None else f"{kind}{line.offset}"
                    found.append(PlacedRow(place, view))
                if time.monotonic() >= until and part.after < file.bytes:
                    return ResultsPage(found, f"{kind}{part.after}", (before + part.after) / size)
            before += file.bytes
        return ResultsPage(found, None)

    async def _parts(
        self, file: FileRecord, begin: int, field: bytes | None, searching: bool
    ) -> AsyncIterator[FilePart]:
        chunk = SEARCH_BYTES if searching or field is not None else PAGE_BYTES
        try:
            async for part in lines_from(self._storage, file, begin, chunk, field):
                yield part
        except BlobLost as error:
            raise ResultsGone(str(error)) from None

    async def _files(self, batch: BatchRecord) -> list[tuple[str, FileRecord]]:
        """With the letter of its places. Raises ResultsGone."""
        found = []
        for kind, file_id in (("o", batch.output_file_id), ("e", batch.error_file_id)):
            if file_id is None:
                continue
            file = await self._storage.metadata.files.get(file_id)
            if file is None:
                name = "output" if kind == "o" else "error"
                raise ResultsGone(f"The batch's {name} file was deleted, or has expired.")
            found.append((kind, file))
        return found


def _parsed(place: str) -> tuple[str, int]:
    """Raises ValueError."""
    found = _PLACE.fullmatch(place)
    if found is None:
        raise ValueError(f"'{place[:40]}' is no place of a row")
    return found[1], int(found[2])


def _of_file(places: Sequence[ResultPlace], kind: str) -> list[ResultPlace]:
    return [each for each in places if each.succeeded == (kind == "o")]


def _of_seen(seen: SeenRow) -> RowView:
    if seen.payload is None:
        return waiting(seen.row.custom_id, seen.row.line)
    return read_line(seen.payload, seen.row.line)


def _has_cause(view: RowView, cause: str) -> bool:
    return view.error is not None and cause_of(view.error).key == cause
