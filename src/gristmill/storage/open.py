"""Opening the storage a user configured."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gristmill.storage.blobs import LocalBlobStore
from gristmill.storage.lock import FolderLock
from gristmill.storage.protocol import Storage
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.user_error import UserError


class StorageSettings(NamedTuple):
    """``database`` is a SQLAlchemy URL, ``blobs`` a folder or file URL; by default both are inside ``data``."""

    data: Path
    database: str | None = None
    blobs: str | None = None


class OpenStorage:
    """A data folder, locked for this process, with its metadata and blobs."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._lock = FolderLock(settings.data)
        self._database = _database_url(settings)
        self._blob_folder = _blob_folder(settings)

    async def start(self) -> Storage:
        """Raises UserError, in a sentence, for a folder or database that cannot be used."""
        self._lock.acquire()
        blobs = LocalBlobStore(self._blob_folder)
        blobs.remove_unfinished()
        metadata = SqlMetadataStore(self._database)
        try:
            await metadata.start()
        except Exception as error:
            self._lock.release()
            raise UserError(f"The database {self._database} cannot be opened: {error}") from error
        # This process is alone here: whoever held a lease is dead.
        await metadata.batches.release_all()
        self.storage = Storage(metadata, blobs)
        return self.storage

    async def stop(self) -> None:
        await self.storage.metadata.stop()
        self._lock.release()


def _database_url(settings: StorageSettings) -> str:
    url = settings.database or f"sqlite:///{settings.data.absolute() / 'gristmill.db'}"
    if not url.startswith("sqlite:///"):
        raise UserError(f"The database '{url}' is not supported: --database takes a sqlite:///PATH URL.")
    return url


def _blob_folder(settings: StorageSettings) -> Path:
    blobs = settings.blobs or str(settings.data / "blobs")
    if "://" in blobs and not blobs.startswith("file://"):
        raise UserError(f"The blob store '{blobs}' is not supported: --blobs takes a folder or a file:// URL.")
    return Path(blobs.removeprefix("file://")).absolute()
