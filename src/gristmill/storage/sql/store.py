"""The metadata store: the methods of each table over one database."""

from __future__ import annotations

from gristmill.storage.sql.batches import SqlBatches
from gristmill.storage.sql.blob_writes import SqlBlobWrites
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.deliveries import SqlDeliveries
from gristmill.storage.sql.files import SqlFiles
from gristmill.storage.sql.idempotency import SqlIdempotencyKeys
from gristmill.storage.sql.rows import SqlRows
from gristmill.storage.sql.uploads import SqlUploads


class SqlMetadataStore:
    """``url`` is a SQLAlchemy database URL."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.keys = SqlIdempotencyKeys(self._database)
        self.files = SqlFiles(self._database)
        self.blob_writes = SqlBlobWrites(self._database)
        self.uploads = SqlUploads(self._database)
        self.batches = SqlBatches(self._database)
        self.rows = SqlRows(self._database)
        self.deliveries = SqlDeliveries(self._database)

    async def start(self) -> None:
        await self._database.migrate()

    async def stop(self) -> None:
        await self._database.close()
