"""Sessions of browsers in SQL."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from gristmill.storage.records import AccessKey, LoginSession
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import access_keys, login_sessions

_KEY_FIELDS = [access_keys.c[name] for name in AccessKey.__struct_fields__]


class SqlLoginSessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, session: LoginSession) -> None:
        values = {name: getattr(session, name) for name in session.__struct_fields__}
        await self._database.write(lambda connection: connection.execute(insert(login_sessions).values(**values)))

    async def key(self, token_hash: bytes, now: int) -> AccessKey | None:
        query = select(*_KEY_FIELDS).where(
            access_keys.c.id == login_sessions.c.key_id,
            login_sessions.c.token_hash == token_hash,
            login_sessions.c.expires_at > now,
        )
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return AccessKey(**found._mapping) if found else None

    async def delete(self, token_hash: bytes) -> None:
        statement = delete(login_sessions).where(login_sessions.c.token_hash == token_hash)
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)

    async def delete_expired(self, now: int) -> int:
        statement = delete(login_sessions).where(login_sessions.c.expires_at <= now)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount, even_if_full=True)
