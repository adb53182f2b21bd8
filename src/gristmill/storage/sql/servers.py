"""The servers that use one database, in SQL."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from gristmill.storage.records import ServerRecord
from gristmill.storage.sql.clock import clock
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import servers

#: No announcement is longer: one that is was made before the clock was set back. In seconds.
LONGEST_ANNOUNCEMENT = 120.0
_FORGOTTEN_AFTER = 86_400.0

_FIELDS = [servers.c[name] for name in ServerRecord.__struct_fields__]
#: Whose announcement has not run out.
IS_ALIVE = and_(servers.c.seen_until > clock(), servers.c.seen_until <= clock() + LONGEST_ANNOUNCEMENT)


class SqlServers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def announce(self, server: ServerRecord, seconds: float) -> None:
        values = msgspec.to_builtins(server) | {"seen_until": clock() + seconds}
        renew = update(servers).where(servers.c.id == server.id).values(**values)
        forget = delete(servers).where(servers.c.seen_until < clock() - _FORGOTTEN_AFTER)

        def work(connection: Connection) -> None:
            if connection.execute(renew).rowcount == 0:
                connection.execute(insert(servers).values(**values))
            connection.execute(forget)

        await self._database.write(work)

    async def alive(self) -> list[ServerRecord]:
        query = select(*_FIELDS).where(IS_ALIVE).order_by(servers.c.started_at, servers.c.id)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [ServerRecord(*row) for row in found]

    async def announced_until(self) -> float | None:
        query = select(func.max(servers.c.seen_until)).where(IS_ALIVE)
        return await self._database.read(lambda connection: connection.scalar(query))

    async def leave(self, server_id: str) -> None:
        statement = delete(servers).where(servers.c.id == server_id)
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)

    async def leave_all(self) -> None:
        await self._database.write(lambda connection: connection.execute(delete(servers)), even_if_full=True)
