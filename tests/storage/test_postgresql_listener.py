"""What servers on one PostgreSQL tell one another of batches: at once where that can be, and never more than a hint."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from metadata_contract import batch, claimed, rows
from structlog.testing import capture_logs

from gristmill.storage.errors import KeyUsed
from gristmill.storage.records import Stage, UsedKey
from gristmill.storage.row_records import Result
from gristmill.storage.sql.store import SqlMetadataStore
from pgbouncer import PgBouncer
from postgres_server import PostgresServer

#: The connections that listen.
LISTENING = "FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = '{}'"


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlMetadataStore]:
    store = SqlMetadataStore.at(url)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


class Ear:
    """Whoever listens with ``store``; ``next`` waits for it."""

    def __init__(self, store: SqlMetadataStore) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        store.listen(self._queue.put_nowait)

    async def next(self) -> str | None:
        async with asyncio.timeout(60):
            return await self._queue.get()

    def nothing_more(self) -> bool:
        return self._queue.empty()


async def test_what_is_to_be_looked_at_is_told_once_it_is_stored_and_nothing_else_is(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    async with opened(url) as one, opened(url) as other:
        ear = Ear(other)
        # It listens now: whatever was there before is to be looked at.
        assert await ear.next() is None
        await one.batches.add(batch("batch_1", total=9), UsedKey.of("key", "POST", b"", 1))
        assert await ear.next() == "batch_1"

        # What is undone is not told, nor is what the runner does with a batch that it has.
        with pytest.raises(KeyUsed):
            await one.batches.add(batch("batch_2"), UsedKey.of("key", "POST", b"", 1))
        lease = await claimed(one, "me")
        await one.batches.renew("me", 60)
        await one.rows.add(lease, rows(4))
        for line in range(1, 5):
            await one.rows.commit(lease, [Result(line, True, b"answer")])
        assert await one.batches.change("batch_1", {"model": "m"}, expected="in_progress", lease=lease)
        assert not await one.batches.change("batch_1", {"model": "m"}, expected="cancelling")
        await one.batches.release(lease, pause=0.01)
        await asyncio.sleep(0.1)
        lease = await claimed(one, "me")

        # Somebody else changes it.
        assert await one.batches.change("batch_1", {"status": "cancelling"}, expected="in_progress")
        assert await ear.next() == "batch_1"
        await one.batches.release(lease)
        assert await ear.next() == "batch_1"

        # Nobody is to take up what has ended.
        claim = await one.batches.claim("me", 0, 60, Stage.ENDING)
        assert claim is not None
        assert await one.batches.change("batch_1", {"status": "cancelled"}, expected="cancelling", lease=claim.lease)
        await one.batches.release(claim.lease)
        await one.batches.add(batch("batch_3"))
        assert await ear.next() == "batch_3" and ear.nothing_more()


async def test_a_connection_that_is_ended_listens_again_and_says_that_something_may_have_been_missed(
    postgres: PostgresServer,
) -> None:
    url = postgres.new_database()
    async with opened(url) as one, opened(url) as other:
        ear = Ear(other)
        assert await ear.next() is None
        with capture_logs() as log:
            for number in range(2):
                ended = f"SELECT pg_terminate_backend(pid, 5000) {LISTENING.format(url.rpartition('/')[2])}"
                assert postgres.execute(ended) == [(True,)]
                await one.batches.add(batch(f"batch_missed_{number}"))
                assert await ear.next() is None
                await one.batches.add(batch(f"batch_{number}"))
                assert await ear.next() == f"batch_{number}"
        assert [line for line in log if line["log_level"] != "debug"] == []


async def test_behind_a_pooler_nobody_listens_and_one_line_says_so(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with PgBouncer(postgres) as bouncer, capture_logs() as log:
        async with opened(bouncer.url(url)) as store:
            ear = Ear(store)
            while not [line for line in log if "pooler" in str(line)]:
                await asyncio.sleep(0.05)
            # It has tried again by now.
            await asyncio.sleep(1.5)
            await store.batches.add(batch("batch_1"))
            assert ear.nothing_more()
        assert len([line for line in log if line["log_level"] != "debug"]) == 1
        assert postgres.execute(f"SELECT pid {LISTENING.format(url.rpartition('/')[2])}") == []


async def test_two_gristmills_in_schemas_of_their_own_hear_nothing_of_each_other(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.execute("CREATE SCHEMA another", url.rpartition("/")[2])
    async with opened(url) as one, opened(f"{url}?options=-csearch_path%3Danother") as other:
        here, there = Ear(one), Ear(other)
        assert await here.next() is None and await there.next() is None
        await other.batches.add(batch("batch_there"))
        await one.batches.add(batch("batch_here"))
        assert await there.next() == "batch_there" and await here.next() == "batch_here"
        assert here.nothing_more() and there.nothing_more()


@pytest.fixture
def hanging(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """For who stops all of its processes: it goes on afterwards."""
    yield postgres
    postgres.resume()


@pytest.mark.parametrize("when", ["while it listens", "while it connects"])
async def test_who_listens_to_a_database_server_that_hangs_is_not_waited_for(
    hanging: PostgresServer, when: str
) -> None:
    async with opened(hanging.new_database()) as store:
        if when == "while it listens":
            assert await Ear(store).next() is None
        hanging.suspend()
        if when == "while it connects":
            Ear(store)
            await asyncio.sleep(0.1)
        # It is closed before the server goes on, which is after this test.
