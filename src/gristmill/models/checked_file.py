"""Writing a file so that it is either wholly there and right, or not there; and checking that it still is."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gristmill.models.cache import make_private
from gristmill.models.progress import Report, human_size
from gristmill.models.receipt import Pulled
from gristmill.user_error import UserError

CHUNK = 1 << 20
_BLOB = re.compile(r"sha256-([0-9a-fA-F]{64})")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """Its SHA-256, in lower case: of Ollama's blobs by their name, which is it, of others by reading them."""
    named = _BLOB.fullmatch(path.name)
    return named[1].lower() if named else sha256_of(path)


def git_blob_id_of(path: Path) -> str:
    """The id git gives the file's content: what a hub reports for files it does not keep by SHA-256."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def intact(pulled: Pulled) -> bool:
    """Whether each file still has the content it was pulled with; reads all of it."""
    return pulled.files_present() and all(
        sha256_of(pulled.folder / file.path) == file.sha256 for file in pulled.receipt.files
    )


def write_checked(path: Path, content: Iterable[bytes], sha256: str | None) -> str:
    """Write ``content``, check it against ``sha256`` when given, then put it in place; returns its SHA-256.

    Raises UserError, leaving no file, when the content is not the expected one.
    """
    temporary = path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    make_private(path.parent)
    try:
        with temporary.open("wb") as file:
            for chunk in content:
                file.write(chunk)
                digest.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UserError(
                f"What was fetched for '{path.name}' is not what it must be (its SHA-256 differs), so it "
                "was not kept: try again, and if it stays so, the source has changed or something on the "
                "way alters it."
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def require_room(folder: Path, size: int) -> None:
    """Raises UserError when the disk that holds ``folder`` (or will) has not ``size`` bytes free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(
            f"This needs {human_size(size)} of free disk space in '{folder}' and there is "
            f"{human_size(free)}: free some, or set GRISTMILL_CACHE to a folder on a larger disk."
        )


@contextmanager
def writing_to(folder: Path, report: Report) -> Iterator[None]:
    """Make ``folder`` and keep other processes' pulls out of it, saying so when one is being waited for.

    What the disk refuses, now or inside the block, becomes a UserError.
    """
    try:
        make_private(folder)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise _refused(error, folder) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.say("Another process is pulling this model: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            raise _refused(error, folder) from None


def _refused(error: OSError, folder: Path) -> UserError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space, or use a folder on a larger disk" if full else "use a folder you may write to"
    reason = error.strerror or str(error)
    return UserError(f"Cannot write to '{error.filename or folder}' ({reason}): {advice} (set GRISTMILL_CACHE).")
