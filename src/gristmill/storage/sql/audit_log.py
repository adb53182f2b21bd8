"""The audit log in SQL."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select

from gristmill.storage.records import AuditEntry
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import audit_log

_FIELDS = [audit_log.c[name] for name in AuditEntry.__struct_fields__]


def insert_entry(connection: Connection, entry: AuditEntry) -> None:
    values = {name: getattr(entry, name) for name in entry.__struct_fields__}
    connection.execute(insert(audit_log).values(**values))


class SqlAuditLog:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, entry: AuditEntry) -> None:
        await self._database.write(lambda connection: insert_entry(connection, entry))

    async def newest(self, limit: int, key_id: str | None = None) -> list[AuditEntry]:
        query = select(*_FIELDS).order_by(audit_log.c.seq.desc()).limit(limit)
        if key_id is not None:
            query = query.where(audit_log.c.key_id == key_id)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [AuditEntry(**row._mapping) for row in found]

    async def delete_old(self, before: int, keep: int) -> int:
        newest = select(func.coalesce(func.max(audit_log.c.seq), 0))
        young = select(audit_log.c.seq).where(audit_log.c.at >= before).order_by(audit_log.c.seq).limit(1)

        def work(connection: Connection) -> int:
            # In the order in which they were added: to look at each would hold up whoever stores results.
            last = connection.scalar(newest) or 0
            first = max(connection.scalar(young) or last + 1, last + 1 - keep)
            return connection.execute(delete(audit_log).where(audit_log.c.seq < first)).rowcount

        return await self._database.write(work, even_if_full=True)
