"""Batches in SQL, and the leases on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, null, select, update

from gristmill.storage.records import TERMINAL_STATUSES, BatchRecord, Changes, FileRecord, Page
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.files import insert_file, select_page
from gristmill.storage.sql.schema import batches

_FIELDS = [batches.c[name] for name in BatchRecord.__struct_fields__]
#: Without what no list shows: it may be a megabyte a batch.
_LISTED = [null().label(field.name) if field.name == "defaults" else field for field in _FIELDS]


def _record(row: Row[Any]) -> BatchRecord:
    return msgspec.convert(dict(zip(BatchRecord.__struct_fields__, row, strict=True)), BatchRecord)


class SqlBatches:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: BatchRecord) -> BatchRecord:
        values = msgspec.to_builtins(batch)
        del values["seq"]
        statement = insert(batches).values(**values, lease_until=0)

        def work(connection: Connection) -> int:
            key = connection.execute(statement).inserted_primary_key
            assert key is not None
            return int(key[0])

        seq = await self._database.write(work)
        return msgspec.structs.replace(batch, seq=seq)

    async def get(self, batch_id: str) -> BatchRecord | None:
        query = select(*_FIELDS).where(batches.c.id == batch_id)
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return _record(found) if found else None

    async def page(self, *, after: str | None, limit: int) -> Page:
        query = select(*_LISTED)
        found, more = await self._database.read(
            lambda connection: select_page(connection, batches, query, after=after, limit=limit, newest_first=True)
        )
        return Page([_record(row) for row in found], more)

    async def change(self, batch_id: str, changes: Changes, *, expected: str, files: Sequence[FileRecord] = ()) -> bool:
        values = msgspec.to_builtins(changes)
        statement = update(batches).where(batches.c.id == batch_id, batches.c.status == expected).values(**values)

        def work(connection: Connection) -> bool:
            if connection.execute(statement).rowcount == 0:
                return False
            for file in files:
                insert_file(connection, file)
            return True

        return await self._database.write(work)

    async def claim(self, owner: str, now: float, lease_seconds: float) -> BatchRecord | None:
        free = (
            select(batches.c.seq)
            .where(batches.c.status.not_in(TERMINAL_STATUSES), batches.c.lease_until <= now)
            .order_by(batches.c.seq)
            .limit(1)
        )

        def work(connection: Connection) -> BatchRecord | None:
            seq = connection.scalar(free)
            if seq is None:
                return None
            taken = connection.execute(
                update(batches)
                .where(batches.c.seq == seq, batches.c.lease_until <= now)
                .values(lease_owner=owner, lease_until=now + lease_seconds)
            )
            if taken.rowcount == 0:
                return None
            return _record(connection.execute(select(*_FIELDS).where(batches.c.seq == seq)).one())

        return await self._database.write(work)

    async def renew(self, owner: str, now: float, lease_seconds: float) -> list[str]:
        extend = update(batches).where(batches.c.lease_owner == owner).values(lease_until=now + lease_seconds)
        held = select(batches.c.id).where(batches.c.lease_owner == owner)

        def work(connection: Connection) -> list[str]:
            connection.execute(extend)
            return list(connection.scalars(held))

        return await self._database.write(work)

    async def release(self, batch_id: str, owner: str, not_before: float = 0) -> None:
        statement = (
            update(batches)
            .where(batches.c.id == batch_id, batches.c.lease_owner == owner)
            .values(lease_owner=None, lease_until=not_before)
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def release_all(self) -> None:
        statement = update(batches).values(lease_owner=None, lease_until=0)
        await self._database.write(lambda connection: connection.execute(statement))
