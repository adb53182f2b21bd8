"""Opening the storage a user configured."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gristmill.storage.blobs import LocalBlobStore
from gristmill.storage.lock import database_lock, folder_lock
from gristmill.storage.new_blobs import AnnouncedBlobs
from gristmill.storage.private import private_file, tighten
from gristmill.storage.protocol import Storage
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.user_error import UserError


class StorageSettings(NamedTuple):
    """``database`` is a SQLAlchemy URL, ``blobs`` a folder or file URL; by default both are inside ``data``."""

    data: Path
    database: str | None = None
    blobs: str | None = None


class OpenStorage:
    """A data folder and its database, locked for this process, with the metadata and blobs in them."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._url = _database_url(settings)
        self._database = Path(self._url.removeprefix("sqlite:///")).absolute()
        self._blob_folder = _blob_folder(settings)
        self._locks = [folder_lock(settings.data)]
        if not self._database.is_relative_to(settings.data.absolute()):
            self._locks.append(database_lock(self._database))

    async def start(self) -> Storage:
        """Raises UserError, in a sentence, for a folder or database that cannot be used."""
        try:
            for lock in self._locks:
                lock.acquire()
            self.storage = await self._open()
        except BaseException:
            self._release()
            raise
        return self.storage

    async def stop(self) -> None:
        await self.storage.metadata.stop()
        self._release()

    async def _open(self) -> Storage:
        try:
            tighten(self._settings.data)
            private_file(self._database)
            blobs = LocalBlobStore(self._blob_folder)
            if self._blob_folder.is_relative_to(self._settings.data.absolute()):
                # Nobody else writes there.
                blobs.remove_unfinished()
        except OSError as error:
            where = error.filename or self._blob_folder
            raise UserError(f"{where} cannot be used: {error.strerror}.") from None
        metadata = SqlMetadataStore.at(self._url)
        try:
            await metadata.start()
            # This process is alone here: whoever held a lease is dead.
            await metadata.batches.release_all()
        except Exception as error:
            await metadata.stop()
            raise UserError(f"The database {self._database} cannot be opened: {error}") from error
        return Storage(metadata, blobs, AnnouncedBlobs(metadata, blobs))

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()


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
