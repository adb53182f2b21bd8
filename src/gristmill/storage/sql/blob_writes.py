"""Blobs under way, in SQL."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from gristmill.storage.errors import WriteGivenUp
from gristmill.storage.records import BlobWrite
from gristmill.storage.sql.clock import clock
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import blob_writes, servers
from gristmill.storage.sql.servers import IS_ALIVE

#: Seconds for which a write that was given up is kept in mind: its owner may be no more than slow.
_MINDED = 86_400.0


def end_blob_write(connection: Connection, path: str) -> None:
    """In the transaction that adds the record which names the blob. Raises WriteGivenUp."""
    statement = delete(blob_writes).where(blob_writes.c.path == path).returning(blob_writes.c.given_up_at)
    if connection.scalar(statement) is not None:
        raise WriteGivenUp(path)


class SqlBlobWrites:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, path: str, owner: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(blob_writes).where(blob_writes.c.path == path))
            connection.execute(insert(blob_writes).values(path=path, owner=owner))

        await self._database.write(work)

    async def under_way(self, path: str, owner: str) -> bool:
        query = select(blob_writes.c.path).where(blob_writes.c.path == path, blob_writes.c.owner == owner)
        # As a write, so that it comes after what was asked for before, whoever asked and does not wait any more.
        return await self._database.write(lambda connection: connection.scalar(query) is not None)

    async def end(self, path: str, owner: str) -> None:
        statement = delete(blob_writes).where(blob_writes.c.path == path, blob_writes.c.owner == owner)
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)

    async def of_the_dead(self, owner: str) -> list[BlobWrite]:
        given_up_at = blob_writes.c.given_up_at
        query = select(blob_writes.c.path, blob_writes.c.owner, func.coalesce(given_up_at, 0)).where(
            blob_writes.c.owner != owner,
            blob_writes.c.owner.not_in(select(servers.c.id).where(IS_ALIVE)),
            or_(given_up_at.is_(None), given_up_at < clock() - _MINDED),
        )
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [BlobWrite(path, other, freed_at > 0) for path, other, freed_at in found]

    async def give_up(self, path: str, owner: str) -> bool:
        statement = (
            update(blob_writes).where(blob_writes.c.path == path, blob_writes.c.owner == owner).values(given_up_at=0)
        )
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount > 0, even_if_full=True
        )

    async def note_freed(self, path: str, owner: str) -> None:
        statement = (
            update(blob_writes)
            .where(blob_writes.c.path == path, blob_writes.c.owner == owner, blob_writes.c.given_up_at == 0)
            .values(given_up_at=clock())
        )
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)
