"""The metadata store: the methods of each table over one database."""

from __future__ import annotations

from collections.abc import Callable

from gristmill.extras import require
from gristmill.storage.scope import EVERYTHING, Scope
from gristmill.storage.sql.access_keys import SqlAccessKeys
from gristmill.storage.sql.audit_log import SqlAuditLog
from gristmill.storage.sql.batches import SqlBatches
from gristmill.storage.sql.blob_writes import SqlBlobWrites
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.deliveries import SqlDeliveries
from gristmill.storage.sql.files import SqlFiles
from gristmill.storage.sql.idempotency import SqlIdempotencyKeys
from gristmill.storage.sql.login_sessions import SqlLoginSessions
from gristmill.storage.sql.migration import SchemaVersion
from gristmill.storage.sql.rows import SqlRows
from gristmill.storage.sql.servers import SqlServers
from gristmill.storage.sql.sqlite import SqliteDatabase
from gristmill.storage.sql.sqlite_upkeep import SqliteUpkeep
from gristmill.storage.sql.uploads import SqlUploads
from gristmill.storage.upkeep_protocol import Upkeep

#: How its URLs begin.
POSTGRESQL = ("postgresql://", "postgres://")


class SqlMetadataStore:
    """The ``scope`` is that of the server itself, but for views."""

    def __init__(self, database: Database, upkeep: Upkeep, scope: Scope = EVERYTHING) -> None:
        self._database = database
        self.upkeep = upkeep
        self.keys = SqlIdempotencyKeys(database, scope)
        self.files = SqlFiles(database, scope)
        self.blob_writes = SqlBlobWrites(database)
        self.uploads = SqlUploads(database, scope)
        self.batches = SqlBatches(database, scope)
        self.rows = SqlRows(database)
        self.deliveries = SqlDeliveries(database, scope)
        self.access_keys = SqlAccessKeys(database)
        self.login_sessions = SqlLoginSessions(database)
        self.audit_log = SqlAuditLog(database)
        self.servers = SqlServers(database)

    @classmethod
    def at(cls, url: str) -> SqlMetadataStore:
        """``url`` is sqlite:///PATH, or one of PostgreSQL as libpq takes it. Raises UserError for one that is not, and
        where what it takes is not installed."""
        if not url.startswith(POSTGRESQL):
            sqlite = SqliteDatabase(url)
            return cls(sqlite, SqliteUpkeep(sqlite))
        require("psycopg", "postgres")
        from gristmill.storage.sql.postgresql import PostgresqlDatabase
        from gristmill.storage.sql.postgresql_upkeep import PostgresqlUpkeep

        postgresql = PostgresqlDatabase(url)
        return cls(postgresql, PostgresqlUpkeep(postgresql))

    @property
    def shared(self) -> bool:
        return self._database.shared

    def seen_by(self, scope: Scope) -> SqlMetadataStore:
        return SqlMetadataStore(self._database, self.upkeep, scope)

    def listen(self, heard: Callable[[str | None], None]) -> None:
        self._database.listen(heard)

    async def start(self) -> None:
        await self._database.migrate()

    async def version(self) -> SchemaVersion:
        """Of the tables, as they are; nothing is changed."""
        return await self._database.version()

    async def stop(self) -> None:
        await self._database.close()
