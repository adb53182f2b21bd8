"""Feeding a batch's unfinished rows to its workers, a few megabytes ahead of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gristmill.batches.reusable_answers import ReusableAnswer, ReusableAnswers
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, file_blob
from gristmill.storage.row_records import Follower, PendingRow, Row

_ROWS_AHEAD = 512
_BYTES_AHEAD = 8 * 1024 * 1024
#: Rows that get another's answer; one row has at most ten thousand (``planning/job_plan.py``).
_FOLLOWERS_AHEAD = 20_000


class Input(NamedTuple):
    """``followers`` are the rows that get this row's answer."""

    line: int
    custom_id: str
    data: bytes
    followers: Sequence[Follower] = ()
    reusable: ReusableAnswer = ReusableAnswer()


class RowFeed:
    """``next`` gives every row without a result exactly once, in the order to run in, then None."""

    def __init__(self, storage: Storage, batch: BatchRecord, reusable_answers: ReusableAnswers | None = None) -> None:
        self._storage = storage
        self._batch = batch
        self._reusable_answers = reusable_answers
        self._has_followers = bool(batch.plan and batch.plan.deduplicated)
        self._blob = file_blob(batch.input_file_id)
        self._known: deque[PendingRow] = deque()
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
            pending = await self._storage.metadata.rows.pending(self._batch.seq, self._after, _ROWS_AHEAD)
            self._ended = not pending
            self._known.extend(pending)
        rows = self._take(await self._follower_counts())
        if not rows:
            return []
        data = await self._read(rows)
        followers = await self._followers([row.line for row in rows])
        known = await self._reusable_answers.find(data) if self._reusable_answers else [ReusableAnswer()] * len(data)
        return [
            Input(row.line, row.custom_id, each, followers.get(row.line, ()), answer)
            for row, each, answer in zip(rows, data, known, strict=True)
        ]

    def _take(self, follower_counts: Mapping[int, int]) -> list[Row]:
        """The next rows that may be held at a time, with all that follow them; at least one."""
        taken: list[Row] = []
        size = followers = 0
        while self._known:
            row = self._known[0].row
            size += row.length
            followers += follower_counts.get(row.line, 0)
            if taken and (size > _BYTES_AHEAD or followers > _FOLLOWERS_AHEAD):
                break
            self._after, _ = self._known.popleft()
            taken.append(row)
        return taken

    async def _follower_counts(self) -> Mapping[int, int]:
        if not self._has_followers:
            return {}
        lines = [known.row.line for known in self._known]
        return await self._storage.metadata.rows.count_followers(self._batch.seq, lines)

    async def _followers(self, lines: list[int]) -> Mapping[int, Sequence[Follower]]:
        if not self._has_followers:
            return {}
        return await self._storage.metadata.rows.followers(self._batch.seq, lines)

    async def _read(self, rows: list[Row]) -> list[bytes]:
        first = rows[0]
        in_line_order = all(row.offset < after.offset for row, after in itertools.pairwise(rows))
        span = rows[-1].offset + rows[-1].length - first.offset
        if (in_line_order and span <= 2 * _BYTES_AHEAD) or len(rows) == 1:
            data = await self._storage.blobs.read(self._blob, first.offset, span)
            starts = [row.offset - first.offset for row in rows]
            return [data[start : start + row.length] for start, row in zip(starts, rows, strict=True)]
        ranges = [(row.offset, row.length) for row in rows]
        return await self._storage.blobs.read_ranges(self._blob, ranges)
