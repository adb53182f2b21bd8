"""What a database needs besides its use: its size, its space given back, a copy of it, and what it names."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, func, select

from gristmill.storage.errors import DiskFull
from gristmill.storage.private import private_file
from gristmill.storage.records import DatabaseSizes, NamedBlob, file_blob, part_blob
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import files, upload_parts

#: Pages copied between two looks at whether to stop.
_COPIED_AT_ONCE = 2_000


class SqlUpkeep:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def sizes(self) -> DatabaseSizes:
        def work(connection: Connection) -> DatabaseSizes:
            page, pages, free = (_pragma(connection, name) for name in ("page_size", "page_count", "freelist_count"))
            return DatabaseSizes(page * pages, page * free, gives_back=_pragma(connection, "auto_vacuum") == 2)

        return await self._database.read(work)

    async def give_back(self, keep: int, at_most: int) -> int:
        def work(connection: Connection) -> int:
            page, free = (_pragma(connection, name) for name in ("page_size", "freelist_count"))
            wanted = min(free - keep // page, at_most // page)
            if wanted <= 0 or _pragma(connection, "auto_vacuum") != 2:
                return 0
            # Each row that is fetched is a step, and a page.
            connection.exec_driver_sql(f"PRAGMA incremental_vacuum({wanted})").all()
            return page * (free - _pragma(connection, "freelist_count"))

        # Asked first as a reader: most often there is nothing to do, and nobody has to wait for it.
        sizes = await self.sizes()
        if not sizes.gives_back or sizes.free <= keep:
            return 0
        return await self._database.write(work)

    async def rebuild(self) -> None:
        await self._database.rebuild()

    async def copy_to(self, target: Path, progress: Callable[[int, int], None]) -> list[NamedBlob]:
        stopped = threading.Event()

        def step(_status: int, left: int, total: int) -> None:
            if stopped.is_set():
                raise InterruptedError
            progress(total - left, total)

        def work(connection: Connection) -> list[NamedBlob]:
            # From the first read on, the connection sees the database as it is now, whoever writes meanwhile.
            named = _named_blobs(connection)
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            _copy(source, target, step)
            return named

        try:
            return await self._database.read(work)
        finally:
            # Where this was cancelled, the thread goes on until it sees it.
            stopped.set()

    async def named_blobs(self) -> list[NamedBlob]:
        return await self._database.read(_named_blobs)

    async def bytes_by_purpose(self) -> dict[str, int]:
        query = select(files.c.purpose, func.sum(files.c.bytes)).where(~files.c.erased).group_by(files.c.purpose)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return {str(purpose): int(size) for purpose, size in found}


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _named_blobs(connection: Connection) -> list[NamedBlob]:
    of_files = connection.execute(select(files.c.id, files.c.bytes).where(~files.c.erased).order_by(files.c.seq))
    of_parts = connection.execute(select(upload_parts.c.id, upload_parts.c.bytes).order_by(upload_parts.c.id))
    named = [NamedBlob(file_blob(file_id), size) for file_id, size in of_files]
    return named + [NamedBlob(part_blob(part_id), size) for part_id, size in of_parts]


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
