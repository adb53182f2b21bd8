"""PostgreSQL's own part of upkeep: little, as its server looks after its space and its copies itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, text

from gristmill.storage.disk_room import DiskRoom
from gristmill.storage.errors import StorageError
from gristmill.storage.sql.upkeep import SqlUpkeep
from gristmill.storage.upkeep_protocol import DatabaseSizes, NamedBlob

_SIZES = text("SELECT pg_database_size(current_database()), current_setting('block_size')::int")


class PostgresqlUpkeep(SqlUpkeep):
    async def sizes(self) -> DatabaseSizes:
        def work(connection: Connection) -> DatabaseSizes:
            size, page = connection.execute(_SIZES).one()
            return DatabaseSizes(size, 0, page, gives_back=False)

        return await self._database.read(work)

    async def disk(self) -> DiskRoom | None:
        return None

    async def give_back(self, keep: int, at_most: int) -> int:
        return 0

    async def rebuild(self) -> None:
        """Its autovacuum does what there is to do."""

    async def copy_to(self, target: Path, progress: Callable[[int, int], None]) -> list[NamedBlob]:
        raise StorageError("A PostgreSQL database is copied by its own tools: pg_dump, or pg_basebackup.")

    async def integrity(self) -> list[str]:
        """Its own tools look at that: pg_amcheck, and checksums at each read."""
        return []
