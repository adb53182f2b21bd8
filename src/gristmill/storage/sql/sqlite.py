"""SQLite behind asyncio: one thread writes, a few read, the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, insert, select
from sqlalchemy.exc import DBAPIError

from gristmill.storage.errors import DiskFull, StorageError
from gristmill.storage.pressure import UnderPressure, patiently
from gristmill.storage.reserve import Reserve
from gristmill.storage.sql.migration import SchemaVersion, upgrade, version_of
from gristmill.storage.sql.schema import OF_BATCH, results, rows, run_order

T = TypeVar("T")

_READERS = 3
#: Rows dropped in one transaction: other writers get their turn in between.
_DROPPED_LINES = 20_000


class SqliteDatabase:
    """A file, and a write-ahead log beside it. ``write`` runs one function at a time, ``read`` some side by side."""

    #: A lock keeps other servers away (``lock``).
    shared = False

    def __init__(self, url: str) -> None:
        self._engine = _create_engine(url)
        self.path = Path(str(self._engine.url.database))
        self._reserve = Reserve(self.path.with_name(self.path.name + ".reserve"))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sql-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="sql-read")

    async def migrate(self) -> None:
        """In one transaction: a kill in the middle has changed nothing."""
        try:
            await self._run(self._writer, self._write_even_if_full, upgrade)
        except DBAPIError as error:
            raise StorageError(str(error.orig)) from error

    async def version(self) -> SchemaVersion:
        try:
            return await self.read(version_of)
        except DBAPIError as error:
            raise StorageError(str(error.orig)) from error

    async def run_script(self, script: str) -> None:
        """Statements outside of any transaction but their own: what cannot be in one, or is done step by step, as the
        driver runs to the end of only those that have columns. Raises StorageError."""
        await self._run(self._writer, lambda _: self._run_script(script), lambda _: None)

    async def write(self, work: Callable[[Connection], T], even_if_full: bool = False) -> T:
        """What may be done ``even_if_full`` may use the space that is kept for it."""
        how = self._write_even_if_full if even_if_full else self._write
        return await patiently(lambda: self._run(self._writer, how, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await patiently(lambda: self._run(self._readers, self._transaction, work))

    async def read_rows(self, batch_seq: int, work: Callable[[Connection], T]) -> T:
        return await self.read(work)

    async def write_rows(self, batch_seq: int, work: Callable[[Connection], T]) -> T:
        return await self.write(work)

    async def drop_rows(self, batch_seq: int, check: Callable[[Connection], None]) -> None:
        last = select(func.max(rows.c.line)).where(rows.c.batch == batch_seq)
        # As a write, so that it comes after rows that are being added, though their caller no longer waits for them.
        last_line = await self.write(lambda connection: connection.scalar(last)) or 0

        def drop(connection: Connection, upto: int) -> None:
            check(connection)
            # At most as many places as lines.
            connection.execute(delete(run_order).where(run_order.c.batch == batch_seq, run_order.c.place <= upto))
            for table in (results, rows):
                connection.execute(delete(table).where(table.c.batch == batch_seq, table.c.line <= upto))

        for upto in range(_DROPPED_LINES, last_line + _DROPPED_LINES, _DROPPED_LINES):
            await self.write(functools.partial(drop, upto=upto))

    async def update_statistics(self, batch_seq: int, check: Callable[[Connection], None]) -> None:
        """SQLite reads a page by the table's key, whatever is in it."""

    def insert_many(self, connection: Connection, table: Table, values: Sequence[dict[str, Any]]) -> None:
        connection.execute(insert(table), values)

    def batches_with_rows(self, connection: Connection) -> set[int]:
        """By one step in the index for each batch, as there may be millions of rows."""
        found: set[int] = set()
        for table in (rows, results, run_order):
            after = -1
            while (seq := connection.scalar(select(func.min(table.c.batch)).where(table.c.batch > after))) is not None:
                found.add(seq)
                after = seq
        return found

    def tell(self, connection: Connection, batch_id: str) -> None:
        """Whoever could be told is in this process."""

    def listen(self, heard: Callable[[str | None], None]) -> None:
        """Nobody tells anything."""

    async def close(self) -> None:
        """Let what was submitted finish, then close; the last connection folds the write-ahead log back in."""
        for pool in (self._writer, self._readers):
            await asyncio.to_thread(pool.shutdown)
        await asyncio.to_thread(self._engine.dispose)

    async def _run(
        self, pool: ThreadPoolExecutor, how: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, how, work)

    def _write_even_if_full(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._write(work)
        except DiskFull:
            self._reserve.spend()
            done = self._write(work)
            self._fold_log_back()
            return done
        finally:
            # At once, in the thread of all writes: another write would take what is left.
            self._reserve.fill()

    def _fold_log_back(self) -> None:
        """So that the next write starts the write-ahead log anew, which takes no space, instead of adding to it."""
        connection = self._engine.raw_connection()
        try:
            with contextlib.suppress(sqlite3.Error):
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()

    def _run_script(self, script: str) -> None:
        connection = self._engine.raw_connection()
        try:
            connection.cursor().executescript(script)
        except sqlite3.OperationalError as error:
            # What was begun must not be left open for whoever gets the connection next.
            connection.rollback()
            raise _clear_error(str(error)) or error from error
        finally:
            connection.close()

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work, sqlite_begin="BEGIN IMMEDIATE")

    def _transaction(self, work: Callable[[Connection], T], **options: str) -> T:
        with _clear_errors(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            return work(connection)


def _create_engine(url: str) -> Engine:
    # Parameters are rows and metadata: an error that repeats them would carry them into the log.
    engine = create_engine(url, pool_size=_READERS + 1, hide_parameters=True)
    # The tables of all batches are the same ones.
    engine = engine.execution_options(schema_translate_map={OF_BATCH: None})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: Any) -> None:
    # Python's driver begins a transaction by itself only before it changes rows, so that tables were made outside any.
    # Without that, ``_begin`` begins every one.
    connection.isolation_level = None
    connection.create_function("gristmill_clock", 0, lambda: time.time())
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout = 30000",
        # Before the database has any content; ``upkeep`` gives its free pages back.
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        # After a long reader, such as a backup, the log may be large; usually it is folded back at 4 MB.
        "journal_size_limit = 16777216",
        # A counted result is durable: every commit reaches the disk, also when the power fails.
        "synchronous = FULL",
        "foreign_keys = ON",
        "cache_size = -16384",
        "temp_store = FILE",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: one that has read first could not wait for it."""
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        clear = _clear_error(str(error.orig))
        if clear is not None:
            raise clear from error
        raise


def _clear_error(text: str) -> StorageError | None:
    """What to do about the failures a person can mend."""
    if "disk is full" in text or "disk I/O error" in text:
        return DiskFull(f"The database cannot be written ({text}): free space on the disk that holds the data folder.")
    if "unable to open database file" in text:
        # What SQLite says of every file that the system does not let it open.
        return UnderPressure(errno.EMFILE)
    if "database is locked" in text:
        return StorageError(
            "The database is locked by another program: stop the other one or choose another --data folder."
        )
    return None
