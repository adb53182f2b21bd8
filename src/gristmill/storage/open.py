"""Opening the storage a user configured."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.blobs.local import LocalBlobStore
from gristmill.storage.blobs.open import blob_folder, open_blobs
from gristmill.storage.errors import StorageError
from gristmill.storage.lock import ProcessLock, database_lock, folder_lock
from gristmill.storage.new_blobs import AnnouncedBlobs
from gristmill.storage.pressure import may_pass
from gristmill.storage.private import private_file, tighten
from gristmill.storage.protocol import MetadataStore, Storage
from gristmill.storage.shared_blobs import require_shared
from gristmill.storage.sql.migration import SchemaVersion
from gristmill.storage.sql.store import POSTGRESQL, SqlMetadataStore
from gristmill.user_error import NotNow, UserError


class StorageSettings(NamedTuple):
    """``database`` is sqlite:///PATH or a URL of PostgreSQL, ``blobs`` a folder, its URL or that of an object store; by
    default both are inside ``data``."""

    data: Path
    database: str | None = None
    blobs: str | None = None


class Places(NamedTuple):
    """Where the parts of what a user configured are; ``data`` is as the user wrote it, the others are absolute.
    ``database`` is None where it is a database server's, ``blobs`` a folder, or the URL of an object store."""

    data: Path
    database: Path | None
    blobs: str
    answers: Path

    @property
    def blob_folder(self) -> Path | None:
        """None where the blobs are in an object store."""
        return blob_folder(self.blobs)

    @property
    def database_name(self) -> str:
        """For sentences: without the URL, which may have a password in it."""
        return "The PostgreSQL database" if self.database is None else f"The database {self.database}"

    @property
    def locks(self) -> list[ProcessLock]:
        """What a process holds that is alone with all of it."""
        locks = [folder_lock(self.data)]
        if self.database is not None and not self.database.is_relative_to(self.data.absolute()):
            locks.append(database_lock(self.database))
        return locks

    def alone(self, held: contextlib.ExitStack) -> bool:
        """Whether no other process uses it, and none can until ``held`` ends; of a database server, nobody knows."""
        if self.database is None:
            return False
        try:
            with contextlib.ExitStack() as locked:
                for lock in self.locks:
                    lock.acquire()
                    locked.callback(lock.release)
                held.push(locked.pop_all())
        except UserError:
            return False
        return True

    @property
    def scorings(self) -> Path:
        """A folder for each, of those that were started in the browser."""
        return self.data.absolute() / "scoring"

    @property
    def restoring(self) -> Path:
        """A folder that is there while a backup is being put in place: what else there is may be half of it."""
        return self.data / "restoring"


def places(settings: StorageSettings) -> Places:
    """Raises UserError for what is not supported."""
    url = _database_url(settings)
    database = None if url.startswith(POSTGRESQL) else Path(url.removeprefix("sqlite:///")).absolute()
    blobs = settings.blobs or str(settings.data / "blobs")
    folder = blob_folder(blobs)
    answers = settings.data.absolute() / "answers.db"
    return Places(settings.data, database, blobs if folder is None else str(folder), answers)


def storage_of(metadata: MetadataStore, blobs: BlobStore) -> Storage:
    """Used here, by a server with an id of its own."""
    server_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    return Storage(metadata, blobs, AnnouncedBlobs(metadata, blobs, server_id), server_id)


@contextlib.asynccontextmanager
async def open_beside(settings: StorageSettings, earlier: bool = False) -> AsyncIterator[Storage]:
    """What a server may be using now: nothing is locked, migrated or tidied up. Raises UserError where there is nothing
    or where it is not of this version (``earlier``: or an earlier one)."""
    _require_blobs(settings)
    async with open_metadata_beside(settings, earlier) as metadata:
        blobs = open_blobs(places(settings).blobs)
        yield storage_of(metadata, blobs)


@contextlib.asynccontextmanager
async def open_metadata_beside(settings: StorageSettings, earlier: bool = False) -> AsyncIterator[MetadataStore]:
    """The same, for what needs no files."""
    found = places(settings)
    if found.database is not None and not found.database.is_file():
        raise UserError(
            f"There is no database {found.database}: name the server's folder with --data, and its --database and "
            "--blobs, if it has any."
        )
    metadata = SqlMetadataStore.at(_database_url(settings))
    try:
        try:
            version = await metadata.version()
        except StorageError as error:
            raise UserError(f"{found.database_name} cannot be used: {error}") from error
        if not version.is_current and not (earlier and version.known):
            raise UserError(f"{found.database_name} is {_of_another_version(version)}.")
        yield metadata
    finally:
        await metadata.stop()


async def prepare(settings: StorageSettings) -> None:
    """Make the tables where there are none, as the first start of a server does. Raises UserError."""
    where = places(settings)
    if where.database is not None:
        if not where.database.exists():
            opened = OpenStorage(settings)
            await opened.start()
            await opened.stop()
        return
    metadata = SqlMetadataStore.at(_database_url(settings))
    try:
        if (await metadata.version()).database is None:
            await metadata.start()
    except StorageError as error:
        raise UserError(f"{where.database_name} cannot be used: {error}") from error
    finally:
        await metadata.stop()


def _of_another_version(version: SchemaVersion) -> str:
    if version.database is None:
        return "not Gristmill's"
    if version.known:
        return "of an earlier version of Gristmill: start this one's server with it once, which brings it up to date"
    return "of a newer version of Gristmill: use that one"


class OpenStorage:
    """A data folder and its database, locked for this process, with the metadata and blobs in them."""

    def __init__(self, settings: StorageSettings) -> None:
        _require_blobs(settings)
        self._settings = settings
        self._url = _database_url(settings)
        self._places = places(settings)
        self._locks = self._places.locks

    async def start(self) -> Storage:
        """Raises UserError, in a sentence, for a folder or database that cannot be used."""
        try:
            for lock in self._locks:
                lock.acquire()
            if self._places.restoring.exists():
                raise UserError(
                    f"A backup was being restored into {self._settings.data}, and that was cut off: run "
                    "'gristmill admin restore' again."
                )
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
            if self._places.database is not None:
                private_file(self._places.database)
            blobs = open_blobs(self._places.blobs)
            if isinstance(blobs, LocalBlobStore) and self._blobs_are_its_own:
                # Nobody else writes there.
                blobs.remove_unfinished()
        except OSError as error:
            where = error.filename or self._places.blobs
            kind = NotNow if may_pass(error) else UserError
            raise kind(f"{where} cannot be used: {error.strerror}.") from None
        await blobs.try_out()
        metadata = SqlMetadataStore.at(self._url)
        try:
            await metadata.start()
            if not metadata.shared:
                # This process is alone here: whoever was here, or held a lease, is dead.
                await metadata.servers.leave_all()
                await metadata.batches.release_all()
            await require_shared(metadata, blobs)
        except UserError:
            await metadata.stop()
            raise
        except Exception as error:
            await metadata.stop()
            kind = NotNow if may_pass(error) else UserError
            raise kind(f"{self._places.database_name} cannot be opened: {error}") from error
        return storage_of(metadata, blobs)

    @property
    def _blobs_are_its_own(self) -> bool:
        return Path(self._places.blobs).is_relative_to(self._places.data.absolute())

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()


def _database_url(settings: StorageSettings) -> str:
    url = settings.database or f"sqlite:///{settings.data.absolute() / 'gristmill.db'}"
    if not url.startswith(("sqlite:///", *POSTGRESQL)):
        # Not the whole: there may be a password in it.
        named = f"The database '{url.partition('://')[0]}'" if "://" in url else "That database"
        raise UserError(
            f"{named} is not supported: --database takes sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    return url


def _require_blobs(settings: StorageSettings) -> None:
    """Raises UserError where every server would look for the files in a folder of its own."""
    if settings.blobs is None and _database_url(settings).startswith(POSTGRESQL):
        raise UserError(
            "With a PostgreSQL database, name with --blobs where the files are: a folder or s3://, gs:// or az:// that "
            "every server on this database reaches."
        )
