"""Files in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, insert, or_, select, update

from gristmill.storage.errors import UnknownCursor
from gristmill.storage.records import (
    TERMINAL_STATUSES,
    FileRecord,
    RecordPage,
    UsedKey,
    file_blob,
)
from gristmill.storage.scope import EVERYTHING, Room, Scope
from gristmill.storage.sql.blob_writes import end_blob_write
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.idempotency import use_key
from gristmill.storage.sql.schema import batches, files
from gristmill.storage.sql.scoped import check_bytes, owned, readable, seen, used_bytes

_FIELDS = [files.c[name] for name in FileRecord.__struct_fields__]


def insert_file(connection: Connection, file: FileRecord, scope: Scope, of_upload: str = "") -> None:
    """``of_upload``: the upload whose parts it is. Raises OverLimit."""
    check_bytes(connection, scope, file.bytes, of_upload)
    values = {name: getattr(file, name) for name in file.__struct_fields__}
    values["key_id"] = owned(scope, file.key_id)
    connection.execute(insert(files).values(**values, deleted=False, erased=False))
    end_blob_write(connection, file_blob(file.id))


def delete_files(connection: Connection, ids: Sequence[str], scope: Scope) -> int:
    """How many there were."""
    there = update(files).where(files.c.id.in_(ids), ~files.c.deleted, seen(files, scope))
    return connection.execute(there.values(deleted=True)).rowcount


def select_page(
    connection: Connection,
    table: Table,
    query: Any,
    there: ColumnElement[bool],
    *,
    after: str | None,
    limit: int,
    newest_first: bool,
) -> tuple[list[Any], bool]:
    """One page of ``query`` by ``seq``, and whether there is more; no row of ``table`` for which ``there`` is false is
    shown, or known as a cursor."""
    query = query.where(there)
    order = table.c.seq.desc() if newest_first else table.c.seq.asc()
    if after is not None:
        cursor = connection.scalar(select(table.c.seq).where(table.c.id == after, there))
        if cursor is None:
            raise UnknownCursor(after)
        query = query.where(table.c.seq < cursor if newest_first else table.c.seq > cursor)
    found = connection.execute(query.order_by(order).limit(limit + 1)).all()
    return list(found[:limit]), len(found) > limit


class SqlFiles:
    def __init__(self, database: Database, scope: Scope = EVERYTHING) -> None:
        self._database = database
        self._scope = scope

    async def add(self, file: FileRecord, key: UsedKey | None = None) -> None:
        def work(connection: Connection) -> None:
            use_key(connection, key, self._scope)
            insert_file(connection, file, self._scope)

        await self._database.write(work)

    async def get(self, file_id: str) -> FileRecord | None:
        query = select(*_FIELDS).where(files.c.id == file_id, ~files.c.deleted, seen(files, self._scope))
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return FileRecord(**found._mapping) if found else None

    async def get_kept(self, file_id: str, reader: str | None) -> FileRecord | None:
        query = select(*_FIELDS).where(files.c.id == file_id, ~files.c.erased, readable(reader))
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return FileRecord(**found._mapping) if found else None

    async def page(
        self, *, after: str | None, limit: int, newest_first: bool, purpose: str | None, now: int | None = None
    ) -> RecordPage:
        query = select(*_FIELDS).where(~files.c.deleted)
        if now is not None:
            query = query.where(or_(files.c.expires_at.is_(None), files.c.expires_at > now))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        found, more = await self._database.read(
            lambda connection: select_page(
                connection, files, query, seen(files, self._scope), after=after, limit=limit, newest_first=newest_first
            )
        )
        return RecordPage([FileRecord(**row._mapping) for row in found], more)

    async def delete(self, file_id: str) -> bool:
        return await self._database.write(
            lambda connection: delete_files(connection, [file_id], self._scope) > 0, even_if_full=True
        )

    async def room(self) -> Room | None:
        limit = self._scope.limits.bytes
        if limit is None:
            return None
        used = await self._database.read(lambda connection: used_bytes(connection, self._scope.key_id))
        return Room(limit, used)

    async def delete_expired(self, now: int) -> int:
        statement = update(files).where(~files.c.deleted, files.c.expires_at <= now).values(deleted=True)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount, even_if_full=True)

    async def garbage(self) -> list[str]:
        in_use = select(batches.c.input_file_id).where(batches.c.status.not_in(TERMINAL_STATUSES))
        query = select(files.c.id).where(files.c.deleted, ~files.c.erased, files.c.id.not_in(in_use))
        return await self._database.read(lambda connection: list(connection.scalars(query)))

    async def mark_erased(self, file_id: str) -> None:
        statement = update(files).where(files.c.id == file_id).values(erased=True)
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)
