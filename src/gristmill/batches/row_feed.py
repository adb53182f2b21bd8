"""Feeding a batch's unfinished rows to its workers, a few megabytes ahead of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, Row, file_blob

_ROWS_AHEAD = 512
_BYTES_AHEAD = 8 * 1024 * 1024


class Input(NamedTuple):
    line: int
    custom_id: str
    data: bytes


class RowFeed:
    """``next`` gives every row without a result exactly once, in line order, then None."""

    def __init__(self, storage: Storage, batch: BatchRecord) -> None:
        self._storage = storage
        self._batch = batch
        self._blob = file_blob(batch.input_file_id)
        self._known: deque[Row] = deque()
        self._ready: deque[Input] = deque()
        self._after = 0
        self._ended = False
        self._closed = False
        self._ahead: asyncio.Task[list[Input]] | None = None
        self._refilling = asyncio.Lock()

    async def next(self) -> Input | None:
        while not self._ready:
            async with self._refilling:
                if self._closed or (not self._ready and not await self._refill()):
                    return None
        return None if self._closed else self._ready.popleft()

    def close(self) -> None:
        """Give out nothing more; what is under way goes on."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.cancel()

    async def _refill(self) -> bool:
        group = await (self._ahead or asyncio.create_task(self._fetch()))
        self._ready.extend(group)
        self._ahead = asyncio.create_task(self._fetch()) if group else None
        return bool(group)

    async def _fetch(self) -> list[Input]:
        if not self._known and not self._ended:
            rows = await self._storage.metadata.rows.pending(self._batch.seq, self._after, _ROWS_AHEAD)
            self._ended = not rows
            self._known.extend(rows)
        rows = self._take(_BYTES_AHEAD)
        if not rows:
            return []
        self._after = rows[-1].line
        data = await self._read(rows)
        return [Input(row.line, row.custom_id, each) for row, each in zip(rows, data, strict=True)]

    def _take(self, max_bytes: int) -> list[Row]:
        """The next rows that fit into ``max_bytes``, at least one."""
        taken: list[Row] = []
        size = 0
        while self._known and (not taken or size + self._known[0].length <= max_bytes):
            size += self._known[0].length
            taken.append(self._known.popleft())
        return taken

    async def _read(self, rows: list[Row]) -> list[bytes]:
        first, last = rows[0], rows[-1]
        span = last.offset + last.length - first.offset
        if span <= 2 * _BYTES_AHEAD or len(rows) == 1:
            data = await self._storage.blobs.read(self._blob, first.offset, span)
            starts = [row.offset - first.offset for row in rows]
            return [data[start : start + row.length] for start, row in zip(starts, rows, strict=True)]
        ranges = [(row.offset, row.length) for row in rows]
        return await self._storage.blobs.read_ranges(self._blob, ranges)
