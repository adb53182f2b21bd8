"""Connections to PostgreSQL that break between any two statements: nothing is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psycopg
import pytest
from metadata_contract import batch, claimed, file, rows
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from gristmill.storage.errors import OutcomeUnknown, Unreachable
from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import UsedKey
from gristmill.storage.row_records import Result, ResultPlace
from gristmill.storage.sql import postgresql_liveness
from gristmill.storage.sql.postgresql_address import PostgresqlAddress
from gristmill.storage.sql.postgresql_connection import create_postgresql_engine, driver_of
from gristmill.storage.sql.store import SqlMetadataStore
from pgbouncer import PgBouncer
from postgres_server import PASSWORD, PostgresServer, programs
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

#: Of libpq: a query of the simple protocol, which is how a transaction is committed.
_COMMIT = b"COMMIT\0"


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlMetadataStore]:
    store = SqlMetadataStore.at(url)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def live(store: MetadataStore, name: str) -> None:
    """A batch's life, by every kind of transaction there is."""
    await store.batches.add(batch(name, total=4), UsedKey.of(name, "POST", b"", 1), [file(f"in-{name}")])
    lease = await claimed(store, "me")
    await store.rows.add(lease, rows(4))
    await store.rows.arrange(lease, 1, [4, 3, 1])
    await store.rows.follow(lease, [(2, 1)])
    await store.batches.renew("me", 60)
    await store.rows.commit(lease, [Result(4, True, b"four", 10, 4, 3)])
    assert [row.line for _, row in await store.rows.pending(lease.batch_seq, 0, 9)] == [3, 1]
    await store.rows.commit(lease, [Result(3, False, b"three"), Result(1, True, b"one"), Result(2, True, b"two")])
    assert [line for line, _ in await store.rows.succeeded(lease.batch_seq, 0, 9)] == [1, 2, 4]
    await store.rows.place(lease, [ResultPlace(True, 1, 0, 0)])
    ended = {"status": "completed", "completed_at": 9, "output_file_id": f"out-{name}"}
    assert await store.batches.change(name, ended, expected="in_progress", lease=lease, files=[file(f"out-{name}")])
    await store.batches.release(lease)
    await store.rows.clear_ended(lease.batch_seq)


async def assert_lived_once(store: MetadataStore, names: list[str]) -> None:
    for name in names:
        record = await store.batches.get(name)
        assert record is not None and (record.status, record.completed, record.failed) == ("completed", 3, 1)
        assert (record.input_tokens, record.cached_tokens, record.output_tokens) == (10, 4, 3)
        assert await store.rows.places(record.seq) == [ResultPlace(True, 1, 0, 0)]
        told = await store.deliveries.page(after=None, limit=9, batch_id=name)
        assert len(told.records) == 1
    assert await store.upkeep.disagreements() == [] == await store.rows.leftovers()
    files = await store.files.page(after=None, limit=10_000, newest_first=True, purpose=None)
    assert sorted(each.id for each in files.records) == sorted(f"{of}-{name}" for name in names for of in ("in", "out"))


async def answers_again(store: MetadataStore) -> None:
    """Who was away for long is looked for now and then."""
    while True:
        with contextlib.suppress(Unreachable):
            await store.batches.get("batch_1")
            return
        await asyncio.sleep(0.05)


class Terminator:
    """Ends the connection at the ``number``-th moment from now: after a statement, or before a commit."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self._left = 0
        self._lock = threading.Lock()

    def at(self, number: int) -> None:
        self._left = number

    @property
    def over(self) -> bool:
        return self._left <= 0

    def __enter__(self) -> Terminator:
        self._listeners: list[tuple[str, Callable[..., None]]] = [
            ("after_cursor_execute", lambda connection, *_: self._count(connection)),
            ("commit", self._count),
        ]
        for name, listener in self._listeners:
            event.listen(Engine, name, listener)
        return self

    def __exit__(self, *_: object) -> None:
        for name, listener in self._listeners:
            event.remove(Engine, name, listener)

    def _count(self, connection: Connection) -> None:
        with self._lock:
            self._left -= 1
            now = self._left == 0
        if now and connection.dialect.name == "postgresql":
            driver: Any = connection.connection.driver_connection
            self._postgres.execute(f"SELECT pg_terminate_backend({driver.info.backend_pid}, 5000)")


async def test_a_connection_ended_between_any_two_statements_changes_nothing_of_what_is_stored(
    postgres: PostgresServer,
) -> None:
    async with opened(postgres.new_database()) as store:
        names: list[str] = []
        with Terminator(postgres) as terminator:
            while not names or terminator.over:
                names.append(f"batch_{len(names)}")
                terminator.at(len(names))
                await live(store, names[-1])
            terminator.at(-1)
        assert len(names) > 50, "the connections were not ended where they matter"
        await assert_lived_once(store, names)


class CommitProxy:
    """Between a client and PostgreSQL: every ``nth`` commit breaks the connection, before the server has it or after
    (``arrives``), so that its answer never comes."""

    def __init__(self, port: int, nth: int, arrives: bool) -> None:
        self._port, self._nth, self._arrives = port, nth, arrives
        self._commits = 0
        self.broken = 0
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                deaf = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, deaf), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, deaf), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if _COMMIT in data and self._breaks():
                    deaf.set()
                    if self._arrives:
                        server.sendall(data)
                    client.shutdown(socket.SHUT_RDWR)
                    break
                server.sendall(data)
        with contextlib.suppress(OSError):
            # What was sent is still read; then the server sees that nobody is there.
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if not deaf.is_set():
                    client.sendall(data)
        for each in (server, client):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _breaks(self) -> bool:
        with self._lock:
            self._commits += 1
            if self._commits % self._nth:
                return False
            self.broken += 1
            return True

    def close(self) -> None:
        self._listening.close()


@pytest.fixture(params=["arrives", "does not arrive"])
def proxy(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[CommitProxy]:
    found = CommitProxy(postgres.port, 4, request.param == "arrives")
    yield found
    found.close()


async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_done_twice(
    postgres: PostgresServer, proxy: CommitProxy
) -> None:
    url = postgres.new_database()
    async with opened(url) as store:
        await store.version()
    async with opened(url.replace(f":{postgres.port}/", f":{proxy.port}/") + "?sslmode=disable") as store:
        names = [f"batch_{number}" for number in range(12)]
        for name in names:
            await live(store, name)
    assert proxy.broken > 20
    async with opened(url) as store:
        await assert_lived_once(store, names)


async def test_a_server_that_hangs_within_a_transaction_holds_up_the_others_for_seconds_only(
    postgres: PostgresServer,
) -> None:
    url = postgres.new_database()
    hangs, goes_on = threading.Event(), threading.Event()
    async with opened(url) as one, opened(url) as other:

        def hang(connection: Connection) -> None:
            hangs.set()
            goes_on.wait(60)

        hanging = asyncio.create_task(one._database.write(hang))
        await asyncio.to_thread(hangs.wait, 60)
        await live(other, "batch_1")
        assert not hanging.done()
        goes_on.set()
        # What it was about to store it stores now.
        await hanging
        await assert_lived_once(one, ["batch_1"])


async def test_a_table_that_somebody_holds_is_not_counted_and_holds_up_no_batch(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    async with opened(url) as store:
        await store.batches.add(batch("batch_1", total=4))
        lease = await claimed(store, "me")
        await store.rows.add(lease, rows(4))
        schema = f"public_batch_{lease.batch_seq}"
        with psycopg.connect(url) as somebody:
            somebody.execute(f"LOCK TABLE {schema}.results IN SHARE UPDATE EXCLUSIVE MODE")
            await store.rows.update_statistics(lease)
        counted = f"SELECT relname, reltuples FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
        counts = dict(postgres.execute(counted, url.rpartition("/")[2]))  # type: ignore[arg-type]
        assert (counts["rows"], counts["results"]) == (4, -1)
        await store.rows.commit(lease, [Result(4, True, b"four")])


async def test_all_of_it_works_behind_pgbouncer_in_transaction_mode(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with PgBouncer(postgres) as bouncer:
        async with opened(bouncer.url(url)) as one, opened(bouncer.url(url)) as other:
            # Two servers, more connections than the pool has.
            names = [f"batch_{number}" for number in range(6)]
            for name in names[:2]:
                await live(one, name)
            await asyncio.gather(
                *(other.files.page(after=None, limit=9, newest_first=True, purpose=None) for _ in range(20))
            )
            for name in names[2:]:
                await live(other, name)
            await assert_lived_once(one, names)


def test_a_batch_goes_on_after_the_database_server_was_killed_and_restarted(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """``postgres`` only says that there is one; this one is killed."""
    found = programs()
    assert found is not None
    count = 4_000
    server = PostgresServer(found)
    try:
        url = server.new_database()
        options = ("--database", url, "--blobs", str(tmp_path / "blobs"), "-O", "latency=0.02", "-O", "slots=32")
        with ServerProcess(tmp_path / "data", *options) as gristmill:
            client = gristmill.client(max_retries=9)
            uploaded = client.files.create(file=("in.jsonl", chat_file(count)), purpose="batch")
            ours = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
            kills = [signal.SIGKILL, signal.SIGINT, signal.SIGQUIT]
            while ours.status not in ("completed", "failed", "expired", "cancelled"):
                counts = ours.request_counts
                if kills and counts is not None and counts.completed > (4 - len(kills)) * count // 5:
                    server.restart(kills.pop(0))
                time.sleep(0.02)
                with contextlib.suppress(openai.APIError):
                    ours = client.batches.retrieve(ours.id)
            assert not kills, "the batch ended before the database was killed"
            assert ours.status == "completed" and ours.output_file_id and ours.error_file_id is None
            assert ours.request_counts is not None and ours.request_counts.completed == count
            lines = client.files.content(ours.output_file_id).text.splitlines()
            assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{number}" for number in range(count)]
    finally:
        server.remove()


@pytest.mark.parametrize("way", ["direct", "pgbouncer"])
async def test_a_database_that_stays_away_is_told_as_such_and_used_again_when_it_is_back(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(postgresql_liveness, "PATIENCE", 1.0)
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    async with contextlib.AsyncExitStack() as stack:
        if way == "pgbouncer":
            # It answers for as long as the server is away, and says so.
            url = stack.enter_context(PgBouncer(postgres, server_login_retry=1)).url(url)
        store = await stack.enter_async_context(opened(url))
        await live(store, "batch_1")
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(Unreachable, match="no connection to the database server"):
            await store.batches.add(batch("batch_2"))
        assert not await asyncio.to_thread(store._database._liveness._answers)
        with pytest.raises(Unreachable):
            await store.batches.get("batch_1")
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await answers_again(store)
        await live(store, "batch_2")
        await assert_lived_once(store, ["batch_1", "batch_2"])


#: Of a server that is asked sooner whether it is there.
_HASTY = {"PATIENCE": 1.0, "_SILENCE": 0.5, "_ANSWER": 2, "_LOOK": 0.1}


class HastyServer(ServerProcess):
    program = (
        sys.executable,
        "-c",
        "from gristmill.batches import supervisor\n"
        "from gristmill.cli.main import main\n"
        "from gristmill.storage.sql import postgresql_liveness\n"
        f"vars(postgresql_liveness).update({_HASTY})\n"
        "supervisor.FAILURE_PAUSE = 1.0\n"
        "main()",
    )


@pytest.fixture
def hanging(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """For who stops all of its processes: it goes on afterwards."""
    yield postgres
    postgres.resume()


async def test_a_database_server_that_hangs_is_waited_for_so_long_and_no_longer_and_used_again_when_it_goes_on(
    hanging: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _HASTY.items():
        monkeypatch.setattr(postgresql_liveness, name, value)
    async with opened(hanging.new_database() + "?connect_timeout=2") as store:
        await live(store, "batch_1")
        within, goes_on = threading.Event(), threading.Event()

        def slow(connection: Connection) -> None:
            connection.exec_driver_sql("SELECT pg_sleep(1.5)")
            within.set()
            goes_on.wait(60)

        # Who only takes long is waited for.
        await store._database.read(lambda connection: connection.exec_driver_sql("SELECT pg_sleep(1.5)"))
        writing = asyncio.create_task(store._database.write(slow))
        await asyncio.to_thread(within.wait, 60)
        hanging.suspend()
        goes_on.set()
        waiting = [asyncio.create_task(store.batches.get("batch_1")) for _ in range(5)]
        with pytest.raises(OutcomeUnknown):
            await writing
        for each in waiting:
            with pytest.raises(Unreachable, match="answered nobody|connection timeout"):
                await each
        # From now on nobody waits.
        with pytest.raises(Unreachable, match="answered nobody"):
            await store.batches.add(batch("batch_2"))
        hanging.resume()
        await answers_again(store)
        await live(store, "batch_3")
        await assert_lived_once(store, ["batch_1", "batch_3"])


async def test_who_takes_long_is_waited_for_by_a_server_that_takes_no_new_connection_meanwhile(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _HASTY.items():
        monkeypatch.setattr(postgresql_liveness, name, value)
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    async with opened(url) as store:

        def slow(connection: Connection) -> bool:
            postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            return bool(connection.exec_driver_sql("SELECT pg_sleep(2) IS NOT NULL").scalar())

        try:
            assert await store._database.read(slow)
        finally:
            postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_of_several_servers_only_the_one_that_hangs_is_given_up(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _HASTY.items():
        monkeypatch.setattr(postgresql_liveness, name, value)
    folder = programs()
    assert folder is not None
    other = PostgresServer(folder)
    hosts = f"127.0.0.1:{other.port},127.0.0.1:{postgres.port}"
    address = PostgresqlAddress(f"postgresql://tests:{PASSWORD}@{hosts}/postgres?connect_timeout=2")
    liveness = postgresql_liveness.Liveness(address)

    def ask(server: PostgresServer, seconds: float) -> bool:
        engine = create_postgresql_engine(PostgresqlAddress(server.url("postgres")), 1)
        try:
            with engine.connect() as connection, liveness.watched(driver_of(connection)):
                return bool(connection.exec_driver_sql(f"SELECT pg_sleep({seconds}) IS NOT NULL").scalar())
        finally:
            engine.dispose()

    def asks(server: PostgresServer) -> bool:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        return server.execute(sleeping) != []

    try:
        hung = asyncio.create_task(asyncio.to_thread(ask, other, 900))
        while not await asyncio.to_thread(asks, other):
            await asyncio.sleep(0.05)
        other.suspend()
        slow = asyncio.create_task(asyncio.to_thread(ask, postgres, 4))
        with pytest.raises(DBAPIError):
            await hung
        assert await slow
    finally:
        liveness.close()
        other.resume()
        other.remove()


def test_while_the_database_hangs_a_server_says_so_and_its_batch_goes_on_by_itself(
    hanging: PostgresServer, tmp_path: Path
) -> None:
    count = 1_000
    options = ("--database", hanging.new_database() + "?connect_timeout=2", "--blobs", str(tmp_path / "blobs"))
    with HastyServer(tmp_path / "data", *options, "-O", "latency=0.02", "-O", "slots=8") as server:
        client = server.client(max_retries=0, timeout=120)
        uploaded = client.files.create(file=("in.jsonl", chat_file(count)), purpose="batch")
        ours = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
        while (counts := client.batches.retrieve(ours.id).request_counts) is None or counts.completed < 100:
            time.sleep(0.05)
        hanging.suspend()
        with pytest.raises(openai.InternalServerError) as refused:
            client.batches.retrieve(ours.id)
        assert refused.value.status_code == 503 and int(refused.value.response.headers["retry-after"]) > 0
        ready = httpx.get(server.base_url.replace("/v1", "/ready"), timeout=60)
        assert ready.status_code == 503 and "answered nobody" in ready.json()["reason"]
        assert httpx.get(server.base_url.replace("/v1", "/health"), timeout=60).status_code == 200
        hanging.resume()
        while ours.status != "completed":
            time.sleep(0.2)
            with contextlib.suppress(openai.InternalServerError):
                ours = client.batches.retrieve(ours.id)
                assert ours.status in ("in_progress", "finalizing", "completed")
        lines = client.files.content(ours.output_file_id or "").text.splitlines()
        assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{number}" for number in range(count)]
