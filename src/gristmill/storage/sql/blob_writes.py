"""Blobs under way, in SQL."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from gristmill.storage.sql.database import Database
from gristmill.storage.sql.schema import blob_writes


def end_blob_write(connection: Connection, path: str) -> None:
    """In the transaction that adds the record which names the blob."""
    connection.execute(delete(blob_writes).where(blob_writes.c.path == path))


class SqlBlobWrites:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, path: str, owner: str) -> None:
        def work(connection: Connection) -> None:
            end_blob_write(connection, path)
            connection.execute(insert(blob_writes).values(path=path, owner=owner))

        await self._database.write(work)

    async def under_way(self, path: str, owner: str) -> bool:
        query = select(blob_writes.c.path).where(blob_writes.c.path == path, blob_writes.c.owner == owner)
        # As a write, so that it comes after what was asked for before, whoever asked and does not wait any more.
        return await self._database.write(lambda connection: connection.scalar(query) is not None)

    async def end(self, path: str, owner: str) -> None:
        statement = delete(blob_writes).where(blob_writes.c.path == path, blob_writes.c.owner == owner)
        await self._database.write(lambda connection: connection.execute(statement), even_if_full=True)

    async def of_others(self, owner: str) -> list[tuple[str, str]]:
        query = select(blob_writes.c.path, blob_writes.c.owner).where(blob_writes.c.owner != owner)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [(path, other) for path, other in found]
