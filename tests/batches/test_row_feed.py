from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.batches import row_feed
from gristmill.batches.result_log import ResultLog
from gristmill.batches.row_feed import RowFeed
from gristmill.storage.errors import LeaseLost
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, Lease
from gristmill.storage.row_records import (
    Follower,
    PendingRow,
    Result,
    Row,
)
from gristmill.wire.batch import BatchPlan

LEASE = Lease(1, "me", 1)
BATCH = BatchRecord(1, "batch_1", "/v1/chat/completions", "file-1", "24h", "in_progress", 1, 2)


class Memory:
    """Rows and the bytes they are in; counts what is read."""

    def __init__(self, lines: Sequence[bytes], done: frozenset[int] = frozenset(), gap: int = 0) -> None:
        self.data = b""
        self.pending_rows = []
        for number, line in enumerate(lines, start=1):
            if number not in done:
                self.pending_rows.append(Row(number, f"row-{number}", len(self.data), len(line)))
            self.data += line + b"\n" + b" " * gap
        self.largest_read = 0
        self.rows = self

    async def pending(self, batch_seq: int, after_place: int, limit: int) -> list[PendingRow]:
        await asyncio.sleep(0)
        return [PendingRow(row.line, row) for row in self.pending_rows if row.line > after_place][:limit]

    async def read(self, path: str, start: int, length: int) -> bytes:
        await asyncio.sleep(0)
        self.largest_read = max(self.largest_read, length)
        return self.data[start : start + length]

    async def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        await asyncio.sleep(0)
        self.largest_read = max(self.largest_read, sum(length for _, length in ranges))
        return [self.data[start : start + length] for start, length in ranges]


def feed_of(memory: Any) -> RowFeed:
    return RowFeed(Storage(memory, memory, memory, "me"), BATCH)


async def drain(feed: RowFeed, workers: int) -> list[tuple[int, str, bytes]]:
    given: list[tuple[int, str, bytes]] = []

    async def work() -> None:
        while (row := await feed.next()) is not None:
            given.append(row)
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(workers)))
    return given


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(max_size=60), max_size=40),
    st.frozensets(st.integers(1, 40)),
    st.integers(0, 300),
    st.integers(1, 9),
)
def test_every_row_without_a_result_is_given_once_in_order_with_its_bytes(
    lines: list[bytes], done: frozenset[int], gap: int, workers: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_feed, "_ROWS_AHEAD", 7)
        patch.setattr(row_feed, "_BYTES_AHEAD", 100)
        memory = Memory(lines, done, gap)
        given = asyncio.run(drain(feed_of(memory), workers))
    expected = [(n, f"row-{n}", line) for n, line in enumerate(lines, start=1) if n not in done]
    assert [row[:3] for row in given] == expected
    # Memory is bounded by what is read ahead, not by the file.
    assert memory.largest_read <= 2 * 100


def test_huge_rows_are_read_one_at_a_time_and_keep_their_order() -> None:
    lines = [bytes([65 + n]) * (10_000_000 if n % 3 else 10) for n in range(9)]
    memory = Memory(lines)
    given = asyncio.run(drain(feed_of(memory), 3))
    assert [row[2] for row in given] == lines
    assert memory.largest_read <= 17_000_000


def test_of_rows_that_many_others_follow_few_are_read_ahead() -> None:
    class WithFollowers(Memory):
        most = 0

        async def count_followers(self, batch_seq: int, lines: Sequence[int]) -> dict[int, int]:
            return {line: line * 100 for line in lines if line % 2}

        async def followers(self, batch_seq: int, lines: Sequence[int]) -> dict[int, list[Follower]]:
            found = {line: [Follower(n, "x") for n in range(line * 100)] for line in lines if line % 2}
            self.most = max(self.most, sum(map(len, found.values())))
            return found

    memory = WithFollowers([b"x"] * 99)
    duplicated = msgspec.structs.replace(BATCH, plan=BatchPlan(deduplicated=1))
    given = asyncio.run(drain(RowFeed(Storage(memory, memory, memory, "me"), duplicated), 3))  # type: ignore[arg-type]
    assert sorted(row[0] for row in given) == list(range(1, 100))
    assert [len(row[3]) for row in sorted(given)] == [n * 100 * (n % 2) for n in range(1, 100)]
    assert memory.most <= 20_000


def test_a_closed_feed_gives_nothing_more_and_no_worker_hangs() -> None:
    async def main() -> None:
        feed = feed_of(Memory([b"x"] * 5_000))
        first = await feed.next()
        assert first is not None and first.line == 1
        waiting = [asyncio.create_task(drain(feed, 1)) for _ in range(4)]
        await asyncio.sleep(0)
        feed.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting, return_exceptions=True)
            assert await feed.next() is None

    asyncio.run(main())


class Store:
    """Takes results as the rows' store does; ``fail`` is raised from the n-th commit on."""

    def __init__(self, fail: Exception | None = None, fail_at: int = 1) -> None:
        self.groups: list[list[Result]] = []
        self._fail = fail
        self._fail_at = fail_at

    async def commit(self, lease: Lease, results: Sequence[Result]) -> None:
        assert lease == LEASE
        await asyncio.sleep(0.001)
        if self._fail is not None and len(self.groups) + 1 >= self._fail_at:
            raise self._fail
        self.groups.append(list(results))


async def log_rows(log: ResultLog, lines: Sequence[int], payload: bytes = b"x") -> None:
    for line in lines:
        await log.add([Result(line, True, payload)])


def test_every_result_is_stored_once_and_in_groups() -> None:
    async def main() -> None:
        store: Any = Store()
        log = ResultLog(store, LEASE)
        running = asyncio.create_task(log.run())
        await asyncio.gather(*(log_rows(log, range(start, 20_000, 8)) for start in range(8)))
        log.finish()
        await running
        stored = [result.line for group in store.groups for result in group]
        assert sorted(stored) == list(range(20_000))
        assert len(store.groups) < 100

    asyncio.run(main())


def test_results_wait_in_memory_only_up_to_a_bound() -> None:
    async def main() -> None:
        store: Any = Store()
        log = ResultLog(store, LEASE)
        running = asyncio.create_task(log.run())
        workers = 8
        await asyncio.gather(*(log_rows(log, range(start, 400, workers), b"x" * 1_000_000) for start in range(workers)))
        log.finish()
        await running
        assert max(sum(len(result.payload) for result in group) for group in store.groups) <= (8 + workers) * 2**20
        assert sum(map(len, store.groups)) == 400

    asyncio.run(main())


def test_a_result_is_stored_soon_even_when_no_other_comes() -> None:
    async def main() -> None:
        store: Any = Store()
        log = ResultLog(store, LEASE)
        running = asyncio.create_task(log.run())
        await log_rows(log, [1])
        async with asyncio.timeout(10):
            while not store.groups:
                await asyncio.sleep(0.01)
        log.finish()
        await running

    asyncio.run(main())


def test_a_store_that_refuses_is_heard_and_nothing_is_stored_after_it() -> None:
    async def main() -> None:
        store: Any = Store(LeaseLost("me"), fail_at=2)
        log = ResultLog(store, LEASE)
        running = asyncio.create_task(log.run())
        adding = asyncio.create_task(log_rows(log, range(100_000)))
        with pytest.raises(LeaseLost):
            await running
        adding.cancel()
        assert len(store.groups) == 1

    asyncio.run(main())
