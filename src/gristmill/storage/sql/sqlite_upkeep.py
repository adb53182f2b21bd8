"""SQLite's own part of upkeep: its size, its space given back, a copy of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection

from gristmill.storage.disk_room import DiskRoom, room_of
from gristmill.storage.errors import DiskFull
from gristmill.storage.private import private_file
from gristmill.storage.sql.sqlite import SqliteDatabase
from gristmill.storage.sql.upkeep import SqlUpkeep, named_blobs_of
from gristmill.storage.upkeep_protocol import DatabaseSizes, NamedBlob

#: Pages copied between two looks at whether to stop.
_COPIED_AT_ONCE = 2_000
_TOLD_PROBLEMS = 20


class SqliteUpkeep(SqlUpkeep):
    def __init__(self, database: SqliteDatabase) -> None:
        super().__init__(database)
        self._sqlite = database

    async def sizes(self) -> DatabaseSizes:
        def work(connection: Connection) -> DatabaseSizes:
            page, pages, free = (_pragma(connection, name) for name in ("page_size", "page_count", "freelist_count"))
            return DatabaseSizes(page * pages, page * free, page, gives_back=_pragma(connection, "auto_vacuum") == 2)

        return await self._database.read(work)

    async def disk(self) -> DiskRoom:
        return await asyncio.to_thread(room_of, self._sqlite.path)

    async def give_back(self, keep: int, at_most: int) -> int:
        before = await self.sizes()
        pages = min(before.free - keep, at_most) // before.page
        if pages <= 0 or not before.gives_back:
            return 0
        # Only when the log is folded back is the file shorter, and on a server at rest nothing else does that.
        await self._sqlite.run_script(
            f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages}); COMMIT; PRAGMA wal_checkpoint(PASSIVE)"
        )
        return max(before.bytes - (await self.sizes()).bytes, 0)

    async def rebuild(self) -> None:
        # What a database of an earlier version has not yet comes with the VACUUM.
        await self._sqlite.run_script("PRAGMA auto_vacuum = INCREMENTAL; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")

    async def copy_to(self, target: Path, progress: Callable[[int, int], None]) -> list[NamedBlob]:
        stopped = threading.Event()

        def step(_status: int, left: int, total: int) -> None:
            if stopped.is_set():
                raise InterruptedError
            progress(total - left, total)

        def work(connection: Connection) -> list[NamedBlob]:
            # From the first read on, the connection sees the database as it is now, whoever writes meanwhile.
            named = named_blobs_of(connection)
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            _copy(source, target, step)
            return named

        try:
            return await self._database.read(work)
        finally:
            # Where this was cancelled, the thread goes on until it sees it.
            stopped.set()

    async def integrity(self) -> list[str]:
        def work(connection: Connection) -> list[str]:
            found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({_TOLD_PROBLEMS})")]
            foreign = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            missing = [f"a row of {row[0]} names one of {row[2]} that is not there" for row in foreign]
            return ([] if found == ["ok"] else found) + missing[:_TOLD_PROBLEMS]

        return await self._database.read(work)


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _copy(source: sqlite3.Connection, target: Path, step: Callable[[int, int, int], None]) -> None:
    """Raises DiskFull and InterruptedError."""
    private_file(target)
    copied = sqlite3.connect(target)
    try:
        # Nothing is lost where it is cut off: a copy counts once it is whole.
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            copied.execute(f"PRAGMA {pragma}")
        source.backup(copied, pages=_COPIED_AT_ONCE, progress=step)
        # One file, without a write-ahead log beside it.
        copied.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        raise DiskFull(f"The database cannot be copied to {target} ({error}): free space on that disk.") from error
    finally:
        copied.close()
    with target.open("rb") as file:
        os.fsync(file.fileno())
