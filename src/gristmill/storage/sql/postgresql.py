"""PostgreSQL behind asyncio: one thread writes, a few read, the event loop never waits for a network.

Nothing here lasts longer than a transaction: no session locks or settings, no named statements. So it works behind
pgbouncer in transaction mode, too; but for one connection that listens, where that can be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.errors import InvalidSchemaName, LockNotAvailable, QueryCanceled, UndefinedTable
from sqlalchemy import Connection, Table, text
from sqlalchemy.exc import DBAPIError

from gristmill.storage.errors import OutcomeUnknown, StorageError
from gristmill.storage.sql.any_text import AnyText
from gristmill.storage.sql.migration import SchemaVersion, upgrade, version_of
from gristmill.storage.sql.postgresql_address import PostgresqlAddress
from gristmill.storage.sql.postgresql_connection import create_postgresql_engine, driver_of, require_usable
from gristmill.storage.sql.postgresql_errors import STANDBY, ConnectionLost, Passing, clear_error
from gristmill.storage.sql.postgresql_listener import Listener, tell
from gristmill.storage.sql.postgresql_liveness import Liveness
from gristmill.storage.sql.schema import OF_BATCH, batch_metadata

T = TypeVar("T")

_READERS = 3
_PAUSE = 0.05
#: Whatever changes more than the rows of one batch takes this lock first: one at a time, over all servers.
_METADATA_LOCK = 0x6772697374


def _begin(mode: str, idle: str, lock: str, statement: str) -> str:
    """A server of ours that hangs, or a statement that waits, holds up the others for no longer than this."""
    return (
        f"BEGIN ISOLATION LEVEL {mode}; SET LOCAL idle_in_transaction_session_timeout = '{idle}'; "
        f"SET LOCAL lock_timeout = '{lock}'; SET LOCAL statement_timeout = '{statement}'"
    )


_WRITE = _begin("READ COMMITTED", "5s", "10s", "60s")
_READ = _begin("REPEATABLE READ READ ONLY", "30s", "10s", "600s")
_MIGRATE = _begin("READ COMMITTED", "60s", "60s", "600s")
# With the number of the transaction, by which the server says afterwards what came of it.
_ITS_NUMBER = "CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id()::text END"
_LOCK = text(f"SELECT {_ITS_NUMBER}, pg_advisory_xact_lock({_METADATA_LOCK})")
_NUMBER = text(f"SELECT {_ITS_NUMBER}")
_OUTCOME = text("SELECT pg_xact_status(CAST(CAST(:number AS text) AS xid8))")

_WITH_TABLES = text(
    "SELECT substr(nspname, length(current_schema() || '_batch_') + 1)::bigint FROM pg_namespace"
    " WHERE starts_with(nspname, current_schema() || '_batch_')"
    " AND substr(nspname, length(current_schema() || '_batch_') + 1) ~ '^[0-9]{1,18}$'"
)


class PostgresqlDatabase:
    """The rows of a batch, their order and results are tables in a schema of its own, which is dropped whole."""

    shared = True

    def __init__(self, url: str) -> None:
        """Raises UserError for what is no URL."""
        self._address = PostgresqlAddress(url)
        self._engine = create_postgresql_engine(self._address, _READERS + 1)
        self._liveness = Liveness(self._address)
        self._listener: Listener | None = None
        # In one thread: what is asked for later is done later.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sql-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="sql-read")

    async def migrate(self) -> None:
        """In one transaction, one server after the other: a kill in the middle has changed nothing."""

        def work(connection: Connection) -> None:
            require_usable(connection)
            upgrade(connection)

        await self._run(self._writer, lambda: self._first_transaction(work, _MIGRATE, _LOCK))

    async def version(self) -> SchemaVersion:
        def work(connection: Connection) -> SchemaVersion:
            require_usable(connection)
            return version_of(connection)

        return await self._run(self._readers, lambda: self._first_transaction(work, _READ))

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self._readers, lambda: self._liveness.patiently(lambda: self._transaction(work, _READ)))

    async def write(self, work: Callable[[Connection], T], even_if_full: bool = False) -> T:
        """What may be done ``even_if_full`` is no different here: space on the server's disk is the server's affair."""
        return await self._run(
            self._writer, lambda: self._liveness.patiently(lambda: self._transaction(work, _WRITE, _LOCK))
        )

    async def read_rows(self, batch_seq: int, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            try:
                return self._transaction(work, _READ, of_batch=batch_seq)
            except DBAPIError as error:
                if not isinstance(error.orig, _NO_TABLES):
                    raise
            # It has no tables: then those of no batch, which are empty, are the same.
            return self._transaction(work, _READ)

        return await self._run(self._readers, lambda: self._liveness.patiently(read))

    async def write_rows(self, batch_seq: int, work: Callable[[Connection], T]) -> T:
        """Without the lock of all metadata: ``work`` locks the batch, which is all that others could change of it."""

        def make_first(connection: Connection) -> T:
            schema = self._schema(connection, batch_seq)
            # Only who has the lease gets as far as the commit, so that nobody makes them at the same time.
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
            batch_metadata.create_all(connection)
            return work(connection)

        def write() -> T:
            try:
                return self._transaction(work, _WRITE, _NUMBER, of_batch=batch_seq)
            except DBAPIError as error:
                if not isinstance(error.orig, _NO_TABLES):
                    raise
            return self._transaction(make_first, _WRITE, _LOCK, of_batch=batch_seq)

        return await self._run(self._writer, lambda: self._liveness.patiently(write))

    async def drop_rows(self, batch_seq: int, check: Callable[[Connection], None]) -> None:
        """At once, however many they are."""

        def work(connection: Connection) -> None:
            check(connection)
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {_quoted(self._schema(connection, batch_seq))} CASCADE")

        await self.write(work, even_if_full=True)

    async def update_statistics(self, batch_seq: int, check: Callable[[Connection], None]) -> None:
        """Of tables that it has not counted, PostgreSQL sorts all that is left for each page that is read; it would
        count them by itself within a minute, in which many are read. A table that somebody holds, or that cannot be
        read in a few seconds, is left to it: leases are renewed by the thread that waits here."""

        def work(connection: Connection) -> None:
            check(connection)
            connection.exec_driver_sql(_QUICKLY)
            for table in batch_metadata.tables.values():
                try:
                    with connection.begin_nested():
                        name = f"{_quoted(self._schema(connection, batch_seq))}.{table.name}"
                        connection.exec_driver_sql(f"ANALYZE {name}")
                except DBAPIError as error:
                    if not isinstance(error.orig, _TAKES_LONG):
                        raise

        await self.write_rows(batch_seq, work)

    def insert_many(self, connection: Connection, table: Table, values: Sequence[dict[str, Any]]) -> None:
        names = list(values[0])
        columns = [table.c[name] for name in names]
        encoders = [
            column.type.bind_processor(connection.dialect) if isinstance(column.type, AnyText) else None
            for column in columns
        ]
        schema = connection.get_execution_options()["schema_translate_map"][OF_BATCH]
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(*([schema] if schema else []), table.name), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        types = [_COPIED[type(column.type).__name__] for column in columns]
        driver = driver_of(connection)
        try:
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                for each in values:
                    copy.write_row(
                        [
                            encode(each[name]) if encode else each[name]
                            for name, encode in zip(names, encoders, strict=True)
                        ]
                    )
        except psycopg.Error as error:
            if driver.closed:
                connection.invalidate(error)
            raise DBAPIError.instance(
                "COPY", None, error, psycopg.Error, connection_invalidated=driver.closed, hide_parameters=True
            ) from error

    def batches_with_rows(self, connection: Connection) -> set[int]:
        """By their schemas."""
        return set(connection.scalars(_WITH_TABLES))

    def tell(self, connection: Connection, batch_id: str) -> None:
        tell(connection, batch_id)

    def listen(self, heard: Callable[[str | None], None]) -> None:
        self._listener = Listener(self._address, self._liveness, lambda work: self._transaction(work, _WRITE), heard)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for pool in (self._writer, self._readers):
            await asyncio.to_thread(pool.shutdown)
        if self._listener is not None:
            await asyncio.to_thread(self._listener.join)
        await asyncio.to_thread(self._liveness.close)
        await asyncio.to_thread(self._engine.dispose)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _schema(self, connection: Connection, batch_seq: int) -> str:
        # Of the schema that our tables are in, so that two Gristmills in one database do not meet.
        return f"{connection.dialect.default_schema_name}_batch_{batch_seq}"

    def _first_transaction(self, work: Callable[[Connection], T], begin: str, first: Any = None) -> T:
        """Raises ConnectionLost only where the same may succeed another time."""
        try:
            return self._transaction(work, begin, first)
        except ConnectionLost as lost:
            cause = lost.__cause__
            if self._address.refuses(cause.orig if isinstance(cause, DBAPIError) else cause):
                raise StorageError(str(lost)) from lost
            raise

    def _transaction(
        self, work: Callable[[Connection], T], begin: str, first: Any = None, of_batch: int | None = None
    ) -> T:
        """``first`` answers with the number of the transaction, if it is one that writes. Raises Passing where nothing
        was stored and it may be tried again; what cannot be known raises StorageError."""
        number: str | None = None
        self._liveness.require()
        away_since: float | None = time.monotonic()
        try:
            with self._engine.connect() as plain, self._liveness.watched(driver_of(plain)):
                away_since = None
                schema = None if of_batch is None else self._schema(plain, of_batch)
                connection = plain.execution_options(begin=begin, schema_translate_map={OF_BATCH: schema})
                with connection.begin() as transaction:
                    given = None if first is None else connection.scalar(first)
                    if first is not None and given is None:
                        raise StorageError(STANDBY)
                    done = work(connection)
                    number = given
                    transaction.commit()
                    return done
        except (DBAPIError, psycopg.Error) as error:
            clear = clear_error(error)
            if clear is None:
                raise
            clear = self._liveness.note(clear, away_since or time.monotonic())
            if number is None or not isinstance(clear, ConnectionLost):
                raise clear from error
            lost = clear
        if self._came_to_pass(number):
            return done
        raise Passing(str(lost)) from lost

    def _came_to_pass(self, number: str) -> bool:
        """Whether the transaction was committed whose commit was not answered. Raises OutcomeUnknown."""
        deadline = self._liveness.patience_ends()
        while time.monotonic() < min(deadline, self._liveness.patience_ends()):
            asked_at = time.monotonic()
            try:
                with (
                    self._engine.connect() as connection,
                    self._liveness.watched(driver_of(connection)),
                    connection.begin(),
                ):
                    status = connection.scalar(_OUTCOME, {"number": number})
                if status != "in progress":
                    return bool(status == "committed")
            except (DBAPIError, psycopg.Error) as error:
                clear = clear_error(error)
                if not isinstance(clear, Passing):
                    break
                self._liveness.note(clear, asked_at)
            time.sleep(_PAUSE)
        raise OutcomeUnknown(
            "The connection to the database server broke while something was stored; whether it was is not known."
        )


#: What only makes later statements faster may take no longer.
_QUICKLY = "SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '4s'"
_TAKES_LONG = (LockNotAvailable, QueryCanceled)
_NO_TABLES = (UndefinedTable, InvalidSchemaName)
#: By the name of a column's type: that of PostgreSQL.
_COPIED = {"BigInteger": "int8", "AnyText": "text", "Boolean": "bool", "LargeBinary": "bytea"}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
