"""A backup that is read to be restored. It may come from anywhere: nothing in it is believed, and no link followed."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from gristmill.storage.care.backup_target import BLOBS
from gristmill.storage.care.copying import Bounded, copy_into
from gristmill.storage.care.manifest import NAME, Entry, Manifest, read
from gristmill.storage.private import private_file, private_folder
from gristmill.user_error import UserError

#: A manifest takes some 150 bytes a file.
_MAX_MANIFEST = 2 * 1024**3


class BackupSource(Protocol):
    manifest: Manifest

    async def copy(self, entry: Entry, target: Path) -> None:
        """Raises UserError where it is not what the manifest says."""
        ...


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[BackupSource]:
    """Raises UserError where there is no whole backup."""
    if path.is_dir():
        yield _FolderSource(path)
        return
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield _TarSource(path, file, tar)
    except tarfile.TarError as error:
        raise UserError(f"{path} is no backup, or only a part of one: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


class _FolderSource:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            with _open_inside(folder, NAME) as file:
                self.manifest = read(file.read(_MAX_MANIFEST), folder)
        except FileNotFoundError:
            raise _not_whole(folder) from None
        self._made = {entry.path for entry in self.manifest.made}

    async def copy(self, entry: Entry, target: Path) -> None:
        path = entry.path if entry.path in self._made else f"{BLOBS}/{entry.path}"
        try:
            with _open_inside(self._folder, path) as file:
                await _copy_checked(entry, file, target, self._folder)
        except FileNotFoundError:
            raise UserError(f"{self._folder} is damaged: {path} is missing.") from None


class _TarSource:
    def __init__(self, path: Path, file: BinaryIO, tar: tarfile.TarFile) -> None:
        self._path = path
        self._tar = tar
        # The last of a name counts, as it does for tar itself. A sparse one may be longer than any disk.
        self._members = {member.name: member for member in tar if member.isreg() and not member.issparse()}
        found = self._members.get(NAME)
        if found is None or found.size > _MAX_MANIFEST:
            raise _not_whole(path)
        self.manifest = read(self._open(found).read(), path)
        self._made = {entry.path for entry in self.manifest.made}

    async def copy(self, entry: Entry, target: Path) -> None:
        name = entry.path if entry.path in self._made else f"{BLOBS}/{entry.path}"
        member = self._members.get(name)
        if member is None:
            raise UserError(f"{self._path} is damaged: {name} is missing.")
        await _copy_checked(entry, self._open(member), target, self._path)

    def _open(self, member: tarfile.TarInfo) -> BinaryIO:
        file = self._tar.extractfile(member)
        assert file is not None
        return file  # type: ignore[return-value]


def _not_whole(path: Path) -> UserError:
    return UserError(f"{path} is no whole backup: it has no {NAME}, which is written last.")


@contextlib.contextmanager
def _open_inside(folder: Path, path: str) -> Iterator[BinaryIO]:
    """A regular file below ``folder``, without following a link on the way to it."""
    *parents, name = path.split("/")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parent in parents:
            inner = _open_at(at, parent, os.O_RDONLY | os.O_DIRECTORY, folder)
            os.close(at)
            at = inner
        # NONBLOCK: a pipe put in its place would be waited for.
        descriptor = _open_at(at, name, os.O_RDONLY | os.O_NONBLOCK, folder)
    finally:
        os.close(at)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{folder} is damaged or was tampered with: {path} is no file.")
        yield file


def _open_at(folder: int, name: str, flags: int, of: Path) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{of} is damaged or was tampered with: {name} cannot be read ({error.strerror}).") from None


async def _copy_checked(entry: Entry, file: BinaryIO, target: Path, of: Path) -> None:
    private_folder(target.parent)
    private_file(target)
    with target.open("wb") as writing:
        copied = await copy_into(entry.path, Bounded(file, entry.bytes + 1), writing)
        writing.flush()
        os.fsync(writing.fileno())
    if copied != entry:
        raise UserError(f"{of} is damaged or was tampered with: {entry.path} is not what {NAME} says it is.")
