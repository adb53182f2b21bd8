"""Idempotency keys in SQL."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from gristmill.storage.errors import KeyUsed
from gristmill.storage.records import KEY_LIFETIME_SECONDS, UsedKey
from gristmill.storage.scope import EVERYTHING, Scope
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import idempotency_keys

_FIELDS = [idempotency_keys.c[name] for name in UsedKey.__struct_fields__]
#: In the place of an access key, where there are none.
_NOBODY = ""


def use_key(connection: Connection, used: UsedKey | None, scope: Scope) -> None:
    """In the transaction that adds what the request creates. Raises KeyUsed."""
    if used is None:
        return
    _check(connection, used, scope)
    connection.execute(delete(idempotency_keys).where(_of(scope), idempotency_keys.c.key == used.key))
    values = {name: getattr(used, name) for name in used.__struct_fields__}
    connection.execute(insert(idempotency_keys).values(**values, key_id=scope.key_id or _NOBODY))


def _of(scope: Scope) -> ColumnElement[bool]:
    """Only one's own, also for whoever sees everything."""
    return idempotency_keys.c.key_id == (scope.key_id or _NOBODY)


def _check(connection: Connection, used: UsedKey, scope: Scope) -> None:
    query = select(*_FIELDS).where(
        _of(scope),
        idempotency_keys.c.key == used.key,
        idempotency_keys.c.used_at > used.used_at - KEY_LIFETIME_SECONDS,
    )
    found = connection.execute(query).one_or_none()
    if found is not None:
        raise KeyUsed(used, UsedKey(**found._mapping))


class SqlIdempotencyKeys:
    def __init__(self, database: Database, scope: Scope = EVERYTHING) -> None:
        self._database = database
        self._scope = scope

    async def check(self, used: UsedKey) -> None:
        await self._database.read(lambda connection: _check(connection, used, self._scope))

    async def delete_expired(self, now: int) -> int:
        statement = delete(idempotency_keys).where(idempotency_keys.c.used_at <= now - KEY_LIFETIME_SECONDS)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount, even_if_full=True)
