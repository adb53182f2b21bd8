"""Taking a backup, while batches run: the database as of one moment, and every blob that it names then."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gristmill import __version__
from gristmill.storage.care.backup_target import BackupTarget, open_target
from gristmill.storage.care.manifest import Entry, Manifest, is_blob_path
from gristmill.storage.care.scorings import pack
from gristmill.storage.errors import BlobLost, StorageError
from gristmill.storage.open import Places, StorageSettings, open_beside, places
from gristmill.storage.private import private_file
from gristmill.storage.protocol import Storage
from gristmill.storage.upkeep_protocol import NamedBlob
from gristmill.user_error import UserError

#: What is under way, and how much of it is done, in bytes or pages.
Progress = Callable[[str, int, int], None]

#: A blob that goes between the copy of the database and its own is usually gone from the next copy, too.
_TRIES = 5


class Backup(NamedTuple):
    """What was made: ``copied`` of its bytes are new, the others were there from the backup before."""

    manifest: Manifest
    bytes: int
    copied: int


async def take_backup(settings: StorageSettings, target: Path, progress: Progress) -> Backup:
    """Raises UserError. Killed or cut off, it leaves the backup that was there before, or none."""
    where = places(settings)
    if where.database is None:
        raise UserError(
            "A PostgreSQL database is backed up with its own tools: take a pg_dump, and then a copy of what is in "
            "--blobs."
        )
    _check_apart(where, target)
    try:
        async with open_beside(settings, earlier=True) as storage:
            with open_target(target) as opened:
                return await _Taking(storage, where, opened, progress).take()
    except StorageError as error:
        raise UserError(f"The backup was not made: {error}") from error
    except OSError as error:
        raise UserError(f"The backup was not made: {error.strerror} ({error.filename or target}).") from error


def _check_apart(where: Places, target: Path) -> None:
    target = target.absolute()
    for folder in (where.data.absolute(), where.blob_folder):
        if folder is None:
            continue
        if target.is_relative_to(folder):
            raise UserError(f"A backup in {folder} would go with it: name a folder or .tar file outside.")
        if folder.is_relative_to(target):
            raise UserError(f"{target} holds the server's own data: name another folder for the backup.")


class _Taking:
    def __init__(self, storage: Storage, where: Places, target: BackupTarget, progress: Progress) -> None:
        self._metadata = storage.metadata
        self._blobs = storage.blobs
        self._where = where
        self._target = target
        self._progress = progress
        self._copied = 0
        self._cut_off: set[str] = set()

    async def take(self) -> Backup:
        # Before the database: a scoring knows of no batch that is not in it.
        scorings = await self._copy_scorings()
        answers = await self._copy_answers()
        entries: dict[str, Entry] = {}
        for last in (*[False] * (_TRIES - 1), True):
            made_at = int(time.time())
            named = await self._copy_database()
            gone = await self._copy_blobs(named, entries)
            # Blobs only ever go: a newer copy of the database names none that is gone by now, unless it was lost.
            if not gone or last or not await self._are_forgotten(gone):
                break
        database = await self._add_made("database")
        blobs = [entries[path] for path, _ in named if path in entries]
        damaged = [path for path, _ in named if path in gone or path in self._cut_off]
        manifest = Manifest(__version__, made_at, database, blobs, answers, scorings, damaged)
        self._target.finish(manifest)
        return Backup(manifest, sum(entry.bytes for entry in manifest.entries), self._copied)

    async def _copy_database(self) -> list[NamedBlob]:
        copy = self._target.room_for("database")
        copy.unlink(missing_ok=True)
        return await self._metadata.upkeep.copy_to(copy, lambda done, all_: self._progress("database", done, all_))

    async def _copy_blobs(self, named: list[NamedBlob], entries: dict[str, Entry]) -> set[str]:
        """Those that are gone."""
        total, done, gone = sum(size for _, size in named), 0, set()
        for path, size in named:
            if path not in entries:
                try:
                    entries[path] = self._target.known(path, size) or await self._copy_blob(path)
                except (FileNotFoundError, BlobLost):
                    gone.add(path)
                    continue
                if entries[path].bytes != size:
                    self._cut_off.add(path)
            done += size
            self._progress("files", done, total)
        return gone

    async def _copy_blob(self, path: str) -> Entry:
        if not is_blob_path(path):
            raise UserError(f"The database names '{path[:80]}' as bytes of a file: it is damaged or was tampered with.")
        folder = self._where.blob_folder
        entry = await self._target.add_blob(path, await self._fetched(path) if folder is None else folder / path)
        self._copied += entry.bytes
        return entry

    async def _fetched(self, path: str) -> Path:
        """A copy of what is in an object store, as a file where the backup's own are made."""
        copy = self._target.room_for("blob")
        copy.unlink(missing_ok=True)
        private_file(copy)
        with copy.open("wb") as file:
            async for chunk in self._blobs.stream(path):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return copy

    async def _are_forgotten(self, gone: set[str]) -> bool:
        """Whether some of the blobs went because their files were deleted meanwhile."""
        still_named = {path for path, _ in await self._metadata.upkeep.named_blobs()}
        return bool(gone - still_named)

    async def _copy_answers(self) -> Entry | None:
        """Of earlier batches, kept for later ones. Without them a batch only asks again: where they cannot be read,
        there is a backup nevertheless."""
        copy = self._target.room_for("answers")
        copy.unlink(missing_ok=True)
        if not self._where.answers.exists():
            return None
        private_file(copy)
        try:
            with (
                contextlib.closing(sqlite3.connect(f"{self._where.answers.as_uri()}?mode=ro", uri=True)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_master").fetchall()
                source.backup(target, pages=-1)
                target.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:
            copy.unlink(missing_ok=True)
            return None
        return await self._add_made("answers")

    async def _copy_scorings(self) -> Entry | None:
        copy = self._target.room_for("scorings")
        copy.unlink(missing_ok=True)
        return await self._add_made("scorings") if await pack(self._where.scorings, copy) else None

    async def _add_made(self, kind: str) -> Entry:
        entry = await self._target.add_made(kind)
        self._copied += entry.bytes
        return entry
