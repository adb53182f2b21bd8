"""Where a backup goes: a folder, which is brought up to date, or a tar file, which is made anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from gristmill.held_file import HeldElsewhere, hold
from gristmill.storage.care.copying import Member, copy_into
from gristmill.storage.care.manifest import KINDS, NAME, OWN_NAME, Entry, Manifest, digest, read
from gristmill.storage.private import private_file, private_folder
from gristmill.user_error import UserError

_PART = ".part"
#: Made before anything else, and kept: it says that the folder is a backup's.
_LOCK = "backup.lock"
BLOBS = "blobs"


class BackupTarget(Protocol):
    def room_for(self, kind: str) -> Path:
        """Where what is made for the backup is to be made, by its kind; ``add_made`` takes it from there. What is a
        ``blob`` is given to ``add_blob``."""
        ...

    async def add_made(self, kind: str) -> Entry: ...
    def known(self, path: str, size: int) -> Entry | None:
        """A blob that an earlier backup has put there."""
        ...

    async def add_blob(self, path: str, source: Path) -> Entry:
        """Raises FileNotFoundError where the source is gone."""
        ...

    def finish(self, manifest: Manifest) -> None:
        """From here on it is this backup; before, it is none, or the one before."""
        ...


@contextlib.contextmanager
def open_target(path: Path) -> Iterator[BackupTarget]:
    """A name that ends in .tar is a file. Raises UserError for what cannot be a backup or become one."""
    target: FolderTarget | TarTarget = TarTarget(path) if path.suffix == ".tar" else FolderTarget(path)
    try:
        with target.held():
            yield target
    except HeldElsewhere as other:
        raise UserError(f"Another backup to {path} is being made (process {other.holder}): wait for it.") from None


class FolderTarget:
    """What is there already is kept and need not be copied again; what the new backup does not name goes at its end.
    Blobs on the same file system are hard links, which take no space: a blob never changes once it has its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: Manifest | None = None
        self._known: dict[str, Entry] = {}
        self._made = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._made = not self._folder.exists()
        private_folder(self._folder)
        self._before = self._read_manifest()
        if not (self._folder / _LOCK).exists() and any(self._folder.iterdir()):
            raise UserError(f"{self._folder} is no backup and not empty: name another folder.")
        lock = hold(self._folder / _LOCK, named=True)
        try:
            if self._before is not None:
                self._known = {entry.path: entry for entry in self._before.blobs}
            yield
        finally:
            self._sweep()
            if self._before is None:
                (self._folder / _LOCK).unlink(missing_ok=True)
            os.close(lock)
            if self._made:
                with contextlib.suppress(OSError):
                    self._folder.rmdir()

    def room_for(self, kind: str) -> Path:
        return self._folder / f"{kind}{_PART}"

    async def add_made(self, kind: str) -> Entry:
        copy = self.room_for(kind)
        entry = await _entry(_own_name(kind), copy)
        copy.rename(self._folder / entry.path)
        return entry

    def known(self, path: str, size: int) -> Entry | None:
        entry = self._known.get(path)
        with contextlib.suppress(FileNotFoundError):
            if entry is not None and entry.bytes == size == (self._folder / BLOBS / path).lstat().st_size:
                return entry
        return None

    async def add_blob(self, path: str, source: Path) -> Entry:
        target = self._folder / BLOBS / path
        private_folder(self._folder / BLOBS)
        if _linked(source, target):
            return await _entry(path, target)
        partial = target.with_name(target.name + _PART)
        private_file(partial)
        with source.open("rb") as reading, partial.open("wb") as writing:
            entry = await copy_into(path, reading, writing)
            writing.flush()
            os.fsync(writing.fileno())
        partial.rename(target)
        return entry

    def finish(self, manifest: Manifest) -> None:
        for folder in (self._folder, self._folder / BLOBS, *(self._folder / BLOBS).glob("*")):
            sync_folder(folder)
        partial = self._folder / (NAME + _PART)
        private_file(partial)
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._folder / NAME)
        sync_folder(self._folder)
        self._before, self._made = manifest, False

    def _read_manifest(self) -> Manifest | None:
        path = self._folder / NAME
        return read(path.read_bytes(), self._folder) if path.exists() else None

    def _sweep(self) -> None:
        """Drop what the manifest does not name: of an older backup, or of one that did not come to its end."""
        if self._before is None:
            shutil.rmtree(self._folder / BLOBS, ignore_errors=True)
        else:
            blobs = {entry.path for entry in self._before.blobs}
            for path in (self._folder / BLOBS).glob("*/*"):
                if path.relative_to(self._folder / BLOBS).as_posix() not in blobs:
                    path.unlink()
        for kind in (*KINDS, "blob"):
            _drop_part(self.room_for(kind))
        made = {entry.path for entry in self._before.made} if self._before else set()
        for path in self._folder.iterdir():
            ours = path.name.endswith(_PART) or OWN_NAME.fullmatch(path.name)
            if ours and path.name not in made:
                path.unlink()


class TarTarget:
    """Everything in one file, its manifest last; it has its name once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + _PART)
        self._finished = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        if self._path.exists():
            raise UserError(f"{self._path} exists already: name another file, or delete it first.")
        private_folder(self._path.parent)
        lock = hold(self._partial, named=False)
        try:
            with (
                os.fdopen(os.dup(lock), "wb") as self._file,
                tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT) as self._tar,
            ):
                self._file.truncate()
                yield
        finally:
            self._sweep()
            if not self._finished:
                self._partial.unlink(missing_ok=True)
            os.close(lock)

    def room_for(self, kind: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{kind}{_PART}")

    async def add_made(self, kind: str) -> Entry:
        return await self._add(_own_name(kind), "", self.room_for(kind))

    def known(self, path: str, size: int) -> Entry | None:
        return None

    async def add_blob(self, path: str, source: Path) -> Entry:
        return await self._add(path, f"{BLOBS}/", source)

    def finish(self, manifest: Manifest) -> None:
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        with Member(self._tar, self._file, NAME, len(content)) as file:
            file.write(content)
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._sweep()
        self._partial.rename(self._path)
        sync_folder(self._path.parent)
        self._finished = True

    def _sweep(self) -> None:
        for kind in (*KINDS, "blob"):
            _drop_part(self.room_for(kind))

    async def _add(self, path: str, below: str, source: Path) -> Entry:
        with source.open("rb") as reading:
            size = os.fstat(reading.fileno()).st_size
            with Member(self._tar, self._file, below + path, size) as writing:
                return await copy_into(path, reading, writing)


def _drop_part(copy: Path) -> None:
    """With the logs that a database leaves beside its copy where the disk is full in the copy's last moment."""
    for beside in ("", "-wal", "-shm"):
        copy.with_name(copy.name + beside).unlink(missing_ok=True)


def _own_name(kind: str) -> str:
    """Of what is made anew each time: the backup before keeps its own until this one is whole."""
    return f"{kind}-{secrets.token_hex(8)}.{KINDS[kind]}"


async def _entry(path: str, file: Path) -> Entry:
    return await asyncio.to_thread(lambda: Entry(path, file.stat().st_size, digest(file)))


def _linked(source: Path, target: Path) -> bool:
    """False where that cannot be: another file system, one without links, somebody else's file, a symbolic link."""
    private_folder(target.parent)
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if not source.is_symlink():
            os.link(source, target)
            return True
    return False


def sync_folder(folder: Path) -> None:
    """So that the names in it survive a power failure, too."""
    if not folder.is_dir():
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
