"""Idempotency keys in SQL."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from gristmill.storage.errors import KeyUsed
from gristmill.storage.records import KEY_LIFETIME_SECONDS, UsedKey
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import idempotency_keys


def use_key(connection: Connection, used: UsedKey | None) -> None:
    """In the transaction that adds what the request creates. Raises KeyUsed."""
    if used is None:
        return
    _check(connection, used)
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.key == used.key))
    values = {name: getattr(used, name) for name in used.__struct_fields__}
    connection.execute(insert(idempotency_keys).values(**values))


def _check(connection: Connection, used: UsedKey) -> None:
    query = select(idempotency_keys).where(
        idempotency_keys.c.key == used.key, idempotency_keys.c.used_at > used.used_at - KEY_LIFETIME_SECONDS
    )
    found = connection.execute(query).one_or_none()
    if found is not None:
        raise KeyUsed(used, UsedKey(**found._mapping))


class SqlIdempotencyKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, used: UsedKey) -> None:
        await self._database.read(lambda connection: _check(connection, used))

    async def delete_expired(self, now: int) -> int:
        statement = delete(idempotency_keys).where(idempotency_keys.c.used_at <= now - KEY_LIFETIME_SECONDS)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount, even_if_full=True)
