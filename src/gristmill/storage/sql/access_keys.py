"""Access keys in SQL."""

from __future__ import annotations

from sqlalchemy import Connection, insert, or_, select, update

from gristmill.storage.errors import NameTaken
from gristmill.storage.records import AccessKey, AuditEntry
from gristmill.storage.sql.audit_log import insert_entry
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import access_keys

_FIELDS = [access_keys.c[name] for name in AccessKey.__struct_fields__]


class SqlAccessKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: AccessKey, entry: AuditEntry, *, only_first: bool = False) -> bool:
        values = {name: getattr(key, name) for name in key.__struct_fields__}
        same_name = select(access_keys.c.id).where(access_keys.c.name == key.name, access_keys.c.revoked_at.is_(None))

        def work(connection: Connection) -> bool:
            if only_first and connection.scalar(select(access_keys.c.id).limit(1)) is not None:
                return False
            if connection.scalar(same_name) is not None:
                raise NameTaken(key.name)
            connection.execute(insert(access_keys).values(**values))
            insert_entry(connection, entry)
            return True

        return await self._database.write(work)

    async def get(self, key_id: str) -> AccessKey | None:
        query = select(*_FIELDS).where(access_keys.c.id == key_id)
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return AccessKey(**found._mapping) if found else None

    async def all(self) -> list[AccessKey]:
        query = select(*_FIELDS).order_by(access_keys.c.seq)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [AccessKey(**row._mapping) for row in found]

    async def revoke(self, key_id: str, entry: AuditEntry) -> int:
        its = or_(access_keys.c.id == key_id, access_keys.c.made_for == key_id)
        statement = update(access_keys).where(its, access_keys.c.revoked_at.is_(None)).values(revoked_at=entry.at)

        def work(connection: Connection) -> int:
            revoked = connection.execute(statement).rowcount
            if revoked:
                insert_entry(connection, entry)
            return revoked

        return await self._database.write(work, even_if_full=True)
