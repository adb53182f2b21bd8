"""Putting a backup in place of a data folder. Everything is copied beside its place and checked before anything is
replaced; while it is, a folder says so, and no server starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from gristmill.storage.care.backup_source import BackupSource, open_source
from gristmill.storage.care.backup_target import sync_folder
from gristmill.storage.care.manifest import Manifest, is_blob_path
from gristmill.storage.care.scorings import unpack
from gristmill.storage.errors import StorageError
from gristmill.storage.open import Places, StorageSettings, places
from gristmill.storage.private import private_folder
from gristmill.storage.records import file_blob, part_blob
from gristmill.storage.sql.store import SqlMetadataStore
from gristmill.user_error import UserError

#: Bytes that are done, of how many.
Progress = Callable[[int, int], None]

_NEW = ".restoring"
_BESIDE_DATABASE = ("-wal", "-shm", ".reserve")


async def restore(settings: StorageSettings, backup: Path, force: bool, progress: Progress) -> Manifest:
    """``force``: replace what is there, which stays as it is until all of the backup has been found whole. Raises
    UserError."""
    where = places(settings)
    database, blobs = _database_file(where), _blob_folder(where)
    _check_replaceable(where, database, blobs)
    with contextlib.ExitStack() as held:
        for lock in where.locks:
            lock.acquire()
            held.callback(lock.release)
        if not force:
            _check_empty(where, database, blobs)
        new = _New(where, database, blobs)
        try:
            with open_source(backup) as source:
                new.clear()
                manifest = await new.copy(source, backup, progress)
            await _check_databases(new.database, new.answers, backup)
            new.put_in_place()
        except OSError as error:
            raise UserError(f"The backup was not restored: {error.strerror} ({error.filename}).") from error
        finally:
            if not where.restoring.exists():
                new.clear()
    return manifest


class _New:
    """What is restored, each part beside the place it is for, and so on the same file system."""

    def __init__(self, where: Places, database: Path, blobs: Path) -> None:
        self._where = where
        self._old_database = database
        self._old_blobs = blobs
        self.database = database.with_name(database.name + _NEW)
        self._blobs = blobs.with_name(blobs.name + _NEW)
        self.answers = where.answers.with_name(where.answers.name + _NEW)
        self._scorings = where.scorings.with_name(where.scorings.name + _NEW)
        self._packed = self._scorings.with_name(self._scorings.name + ".tar")

    def clear(self) -> None:
        shutil.rmtree(self._blobs, ignore_errors=True)
        shutil.rmtree(self._scorings, ignore_errors=True)
        self._packed.unlink(missing_ok=True)
        for path in (self.database, self.answers):
            for name in ("", *_BESIDE_DATABASE):
                path.with_name(path.name + name).unlink(missing_ok=True)

    async def copy(self, source: BackupSource, backup: Path, progress: Progress) -> Manifest:
        manifest = source.manifest
        private_folder(self._blobs)
        targets = [(entry, self._blobs / entry.path) for entry in manifest.blobs]
        targets.append((manifest.database, self.database))
        if manifest.answers is not None:
            targets.append((manifest.answers, self.answers))
        if manifest.scorings is not None:
            targets.append((manifest.scorings, self._packed))
        total, done = sum(entry.bytes for entry, _ in targets), 0
        for entry, target in targets:
            await source.copy(entry, target)
            done += entry.bytes
            progress(done, total)
        if manifest.scorings is not None:
            await unpack(self._packed, self._scorings, backup)
            self._packed.unlink()
        return manifest

    def put_in_place(self) -> None:
        """In steps that a kill may come between: ``restoring`` is there until all are done."""
        where = self._where
        private_folder(where.restoring)
        sync_folder(where.data)
        # What belongs to the old database must not be taken for the new one's.
        for name in _BESIDE_DATABASE:
            self._old_database.with_name(self._old_database.name + name).unlink(missing_ok=True)
        self._old_database.unlink(missing_ok=True)
        for name in ("", "-wal", "-shm"):
            where.answers.with_name(where.answers.name + name).unlink(missing_ok=True)
        shutil.rmtree(self._old_blobs, ignore_errors=True)
        shutil.rmtree(where.scorings, ignore_errors=True)
        self._blobs.rename(self._old_blobs)
        if self._scorings.exists():
            self._scorings.rename(where.scorings)
        if self.answers.exists():
            self.answers.rename(where.answers)
        self.database.rename(self._old_database)
        self._hand_over()
        for folder in {self._old_blobs.parent, self._old_database.parent, where.data}:
            sync_folder(folder)
        where.restoring.rmdir()

    def _hand_over(self) -> None:
        """What root restores belongs to whoever the data folder belongs to: the server may be somebody else."""
        owner = self._where.data.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            where = self._where
            for path in (
                self._old_database,
                where.answers,
                where.data / "lock",
                *_tree(self._old_blobs),
                *_tree(where.scorings),
            ):
                with contextlib.suppress(FileNotFoundError):
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def _database_file(where: Places) -> Path:
    """Raises UserError where the database is a server's."""
    if where.database is not None:
        return where.database
    raise UserError(
        "A backup is restored into a folder, not into a PostgreSQL database: restore it without --database, or use "
        "pg_restore for what pg_dump has made."
    )


def _blob_folder(where: Places) -> Path:
    """Raises UserError where the blobs are to be in an object store, which replaces nothing in one step."""
    if (folder := where.blob_folder) is not None:
        return folder
    raise UserError(
        f"A backup is restored into a folder, not into {where.blobs}: restore it without --blobs, copy 'files' and "
        f"'parts' from {where.data / 'blobs'} to there with the store's own tool, and start the server with --blobs."
    )


def _check_replaceable(where: Places, database: Path, blobs: Path) -> None:
    """Raises UserError for what cannot be put in place in one step."""
    for path in (blobs, database, where.scorings):
        if path.is_symlink() or path.is_mount():
            raise UserError(
                f"{path} is a link or a mount point, which cannot be replaced: restore into another folder (--data, "
                "--blobs), and move the files from there."
            )


def _check_empty(where: Places, database: Path, blobs: Path) -> None:
    """Raises UserError where a server has been, or something else is."""
    if where.restoring.exists():
        # An earlier restoring was cut off: what is there is its own.
        return
    found = [path for path in (database, blobs) if path.exists() and not _is_empty_folder(path)]
    # An earlier try may have been killed.
    parts = (database, blobs, where.answers, where.scorings)
    ours = ("lock", *(path.name + _NEW for path in parts))
    others = [path for path in where.data.iterdir() if not path.name.startswith(ours)]
    found += [path for path in others if path.absolute() not in (*found, blobs)]
    if found:
        raise UserError(
            f"{where.data} is not empty ({found[0].name}): name another folder with --data, or replace what is there "
            "with --force."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


async def _check_databases(database: Path, answers: Path, backup: Path) -> None:
    """Raises UserError for what Gristmill has not made, or cannot use."""
    metadata = SqlMetadataStore.at(f"sqlite:///{database}")
    try:
        version = await metadata.version()
    except StorageError as error:
        raise UserError(f"The database in {backup} cannot be used: {error}") from error
    finally:
        await metadata.stop()
    if version.database is not None and not version.known:
        raise UserError(f"{backup} was made by a newer version of Gristmill: restore it with that one.")
    problem = _look_into(database, _problem) or _look_into(answers, _strange)
    if version.database is None:
        problem = "it has none of Gristmill's tables"
    if problem is not None:
        raise UserError(f"The database in {backup} is damaged or was tampered with: {problem}.")
    for name in _BESIDE_DATABASE:
        database.with_name(database.name + name).unlink(missing_ok=True)


def _look_into(database: Path, look: Callable[[sqlite3.Connection], str | None]) -> str | None:
    if not database.exists():
        return None
    try:
        # Immutable: nothing is made beside it.
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?immutable=1", uri=True)) as connection:
            return look(connection)
    except sqlite3.Error as error:
        return str(error)


def _strange(connection: sqlite3.Connection) -> str | None:
    """What would run by itself, or is not the table that it says it is."""
    found = connection.execute("SELECT type FROM sqlite_master WHERE type NOT IN ('table', 'index')").fetchone()
    return None if found is None else f"there is a {found[0]} in it"


def _problem(connection: sqlite3.Connection) -> str | None:
    if (strange := _strange(connection)) is not None:
        return strange
    (integrity,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if integrity != "ok":
        return str(integrity)
    for table, blob_of in (("files", file_blob), ("upload_parts", part_blob)):
        for (found,) in connection.execute(f"SELECT id FROM {table}"):
            if not is_blob_path(blob_of(str(found))):
                return f"it names a file '{str(found)[:80]}'"
    has_writes = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'blob_writes'").fetchone()
    for (path,) in connection.execute("SELECT path FROM blob_writes") if has_writes else ():
        if not is_blob_path(str(path)):
            return f"it names a file '{str(path)[:80]}'"
    return None
