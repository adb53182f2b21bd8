"""What a database needs besides its use, as far as SQL says it: what it names, and what may be forgotten."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, not_, select, union_all, update

from gristmill.storage.records import TERMINAL_STATUSES, file_blob, part_blob
from gristmill.storage.sql import consistency
from gristmill.storage.sql.batches import prunable
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import batches, blob_writes, files, upload_parts, uploads
from gristmill.storage.upkeep_protocol import CurrentLease, Disagreement, NamedBlob, Prunable

#: SQLite's oldest limit on the values of one statement is 999.
_ASKED_AT_ONCE = 500


class SqlUpkeep:
    """What is left to a subclass is the database as such: its size, its space, a copy of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def named_blobs(self) -> list[NamedBlob]:
        return await self._database.read(named_blobs_of)

    async def bytes_by_purpose(self) -> dict[str, int]:
        query = select(files.c.purpose, func.sum(files.c.bytes)).where(~files.c.erased).group_by(files.c.purpose)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return {str(purpose): int(size) for purpose, size in found}

    async def prunable(self, ended_before: int) -> Prunable:
        def work(connection: Connection) -> Prunable:
            forgotten = self._forgotten(connection, ended_before)
            old = select(func.count()).select_from(batches).where(forgotten)
            of_old = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).where(_only_of(forgotten))
            count, size = connection.execute(of_old).one()
            return Prunable(int(connection.scalar(old) or 0), int(count), int(size))

        return await self._database.read(work)

    async def delete_files_of(self, ended_before: int) -> int:
        def work(connection: Connection) -> int:
            gone = _only_of(self._forgotten(connection, ended_before))
            return connection.execute(update(files).where(gone).values(deleted=True)).rowcount

        return await self._database.write(work, even_if_full=True)

    async def forget_remains(self, before: int) -> int:
        # Never the newest, whose ``seq`` would be given again.
        newest = select(func.max(files.c.seq)).scalar_subquery()
        gone = delete(files).where(files.c.erased, files.c.created_at < before, files.c.seq < newest)
        parts = exists().where(upload_parts.c.upload_id == uploads.c.id)
        ended = delete(uploads).where(uploads.c.status != "pending", uploads.c.created_at < before, ~parts)

        def work(connection: Connection) -> int:
            return connection.execute(gone).rowcount + connection.execute(ended).rowcount

        return await self._database.write(work, even_if_full=True)

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

    def _forgotten(self, connection: Connection, ended_before: int) -> ColumnElement[bool]:
        return prunable(ended_before, self._database.batches_with_rows(connection))


_NAMED_BY_BATCHES = (batches.c.input_file_id, batches.c.output_file_id, batches.c.error_file_id)


def _only_of(old: ColumnElement[bool]) -> ColumnElement[bool]:
    """Files of batches that are ``old``, and of no other."""
    of_old, of_others = (
        union_all(*(select(column).where(which, column.is_not(None)) for column in _NAMED_BY_BATCHES))
        for which in (old, not_(old))
    )
    return and_(~files.c.deleted, files.c.id.in_(of_old), files.c.id.not_in(of_others))


def named_blobs_of(connection: Connection) -> list[NamedBlob]:
    of_files = connection.execute(select(files.c.id, files.c.bytes).where(~files.c.erased).order_by(files.c.seq))
    of_parts = connection.execute(select(upload_parts.c.id, upload_parts.c.bytes).order_by(upload_parts.c.id))
    named = [NamedBlob(file_blob(file_id), size) for file_id, size in of_files]
    return named + [NamedBlob(part_blob(part_id), size) for part_id, size in of_parts]
