"""The folders of scorings in a backup: one tar file, as their files change and a backup's may not."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gristmill.storage.care.copying import Bounded, Member, copy_into
from gristmill.storage.private import private_file, private_folder
from gristmill.user_error import UserError

#: Below the folder of all scorings: that of one, and what is in it.
_FILE = re.compile(r"scoring_[0-9a-f]{32}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,127}){1,8}")
#: Says how far a scoring is; without it there is only an upload under way.
_NOTE = "job.json"
#: What is being written, which has another name once it is whole.
_PART = ".part"
#: A scoring that changes while it is copied is copied again.
_TRIES = 5


class _Version(NamedTuple):
    """What a file is told by from what it was before."""

    inode: int
    bytes: int
    changed_at: int


async def pack(scorings: Path, target: Path) -> bool:
    """Each scoring as of one moment. False where there is none."""
    folders = await asyncio.to_thread(lambda: sorted(path.parent for path in scorings.glob(f"*/{_NOTE}")))
    private_file(target)
    with target.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in folders:
            await _pack_one(tar, file, scorings, folder)
    with target.open("rb") as whole:
        os.fsync(whole.fileno())
    return bool(folders)


async def _pack_one(tar: tarfile.TarFile, file: BinaryIO, scorings: Path, folder: Path) -> None:
    # If it changes each time, its note, which comes first, is older than all else: more is asked again than need be.
    began = tar.offset
    for _ in range(_TRIES):
        before = _versions(scorings, folder)
        file.seek(began)
        file.truncate()
        tar.offset = began
        for name, version in before.items():
            try:
                reading = (scorings / name).open("rb")
            except FileNotFoundError:
                continue
            with reading, Member(tar, file, name, version.bytes) as writing:
                copied = await copy_into(name, Bounded(reading, version.bytes), writing)
                # It was cut off meanwhile, so that this is done again.
                writing.write(bytes(version.bytes - copied.bytes))
        if _versions(scorings, folder) == before:
            return


def _versions(scorings: Path, folder: Path) -> dict[str, _Version]:
    return {name: version for path in sorted(folder.rglob("*")) for name, version in _version(scorings, path)}


def _version(scorings: Path, path: Path) -> Iterator[tuple[str, _Version]]:
    name = path.relative_to(scorings).as_posix()
    if name.endswith(_PART) or _FILE.fullmatch(name) is None:
        return
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode):
        yield name, _Version(found.st_ino, found.st_size, found.st_mtime_ns)


async def unpack(source: Path, scorings: Path, of: Path) -> None:
    """Into ``scorings``, which is not there. Raises UserError for anything that ``pack`` would not have made, ``of``
    the backup."""
    private_folder(scorings)
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse() or _FILE.fullmatch(member.name) is None:
                    raise UserError(f"{of} is damaged or was tampered with: it has a scoring '{member.name[:80]}'.")
                await _unpack_one(tar, member, scorings / member.name)
    except tarfile.TarError as error:
        raise UserError(f"{of} is damaged or was tampered with: its scorings cannot be read ({error}).") from None


async def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    for folder in reversed(target.parents[: member.name.count("/")]):
        private_folder(folder)
    reading = tar.extractfile(member)
    assert reading is not None
    # Nothing is written over: a name is there once.
    with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as writing:
        await copy_into(member.name, reading, writing)
        writing.flush()
        os.fsync(writing.fileno())
