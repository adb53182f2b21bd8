"""What a database needs besides its use: its size, its space given back, a copy of it, and what it names."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, not_, select, union_all, update

from gristmill.storage.disk_room import DiskRoom, room_of
from gristmill.storage.errors import DiskFull
from gristmill.storage.private import private_file
from gristmill.storage.records import TERMINAL_STATUSES, file_blob, part_blob
from gristmill.storage.sql import consistency
from gristmill.storage.sql.batches import prunable
from gristmill.storage.sql.schema import batches, blob_writes, files, upload_parts, uploads
from gristmill.storage.sql.sqlite import SqliteDatabase
from gristmill.storage.upkeep_protocol import CurrentLease, DatabaseSizes, Disagreement, NamedBlob, Prunable

#: Pages copied between two looks at whether to stop.
_COPIED_AT_ONCE = 2_000
#: SQLite's oldest limit on the values of one statement is 999.
_ASKED_AT_ONCE = 500
_TOLD_PROBLEMS = 20


class SqlUpkeep:
    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def sizes(self) -> DatabaseSizes:
        def work(connection: Connection) -> DatabaseSizes:
            page, pages, free = (_pragma(connection, name) for name in ("page_size", "page_count", "freelist_count"))
            return DatabaseSizes(page * pages, page * free, page, gives_back=_pragma(connection, "auto_vacuum") == 2)

        return await self._database.read(work)

    async def disk(self) -> DiskRoom:
        return await asyncio.to_thread(room_of, self._database.path)

    async def give_back(self, keep: int, at_most: int) -> int:
        before = await self.sizes()
        pages = min(before.free - keep, at_most) // before.page
        if pages <= 0 or not before.gives_back:
            return 0
        # Only when the log is folded back is the file shorter, and on a server at rest nothing else does that.
        await self._database.run_script(
            f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages}); COMMIT; PRAGMA wal_checkpoint(PASSIVE)"
        )
        return max(before.bytes - (await self.sizes()).bytes, 0)

    async def rebuild(self) -> None:
        # What a database of an earlier version has not yet comes with the VACUUM.
        await self._database.run_script("PRAGMA auto_vacuum = INCREMENTAL; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")

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

    async def prunable(self, ended_before: int) -> Prunable:
        old = select(func.count()).select_from(batches).where(prunable(ended_before))
        of_old = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).where(_only_of(ended_before))

        def work(connection: Connection) -> Prunable:
            count, size = connection.execute(of_old).one()
            return Prunable(int(connection.scalar(old) or 0), int(count), int(size))

        return await self._database.read(work)

    async def delete_files_of(self, ended_before: int) -> int:
        statement = update(files).where(_only_of(ended_before)).values(deleted=True)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount, even_if_full=True)

    async def forget_remains(self, before: int) -> int:
        # Never the newest, whose ``seq`` would be given again.
        newest = select(func.max(files.c.seq)).scalar_subquery()
        gone = delete(files).where(files.c.erased, files.c.created_at < before, files.c.seq < newest)
        parts = exists().where(upload_parts.c.upload_id == uploads.c.id)
        ended = delete(uploads).where(uploads.c.status != "pending", uploads.c.created_at < before, ~parts)

        def work(connection: Connection) -> int:
            return connection.execute(gone).rowcount + connection.execute(ended).rowcount

        return await self._database.write(work, even_if_full=True)

    async def integrity(self) -> list[str]:
        def work(connection: Connection) -> list[str]:
            found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({_TOLD_PROBLEMS})")]
            foreign = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            missing = [f"a row of {row[0]} names one of {row[2]} that is not there" for row in foreign]
            return ([] if found == ["ok"] else found) + missing[:_TOLD_PROBLEMS]

        return await self._database.read(work)

    async def disagreements(self) -> list[Disagreement]:
        return await consistency.disagreements(self._database)

    async def leases(self) -> list[CurrentLease]:
        held = select(batches.c.id, batches.c.lease_owner, batches.c.lease_until).where(
            batches.c.status.not_in(TERMINAL_STATUSES), batches.c.lease_owner.is_not(None)
        )
        found = await self._database.read(lambda connection: connection.execute(held).all())
        return [CurrentLease(*row) for row in found]

    async def unnamed(self, paths: Collection[str]) -> set[str]:
        asked = list(paths)

        def work(connection: Connection) -> set[str]:
            named: set[str] = set()
            for start in range(0, len(asked), _ASKED_AT_ONCE):
                part = asked[start : start + _ASKED_AT_ONCE]
                ids = [path.partition("/")[2] for path in part]
                of_files = select(files.c.id).where(files.c.id.in_(ids), ~files.c.erased)
                of_parts = select(upload_parts.c.id).where(upload_parts.c.id.in_(ids))
                announced = select(blob_writes.c.path).where(blob_writes.c.path.in_(part))
                named |= {file_blob(each) for each in connection.scalars(of_files)}
                named |= {part_blob(each) for each in connection.scalars(of_parts)}
                named |= set(connection.scalars(announced))
            return set(asked) - named

        return await self._database.read(work)


_NAMED_BY_BATCHES = (batches.c.input_file_id, batches.c.output_file_id, batches.c.error_file_id)


def _only_of(ended_before: int) -> ColumnElement[bool]:
    """Files of batches that may be forgotten, and of no other."""
    old = prunable(ended_before)
    of_old, of_others = (
        union_all(*(select(column).where(which, column.is_not(None)) for column in _NAMED_BY_BATCHES))
        for which in (old, not_(old))
    )
    return and_(~files.c.deleted, files.c.id.in_(of_old), files.c.id.not_in(of_others))


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
