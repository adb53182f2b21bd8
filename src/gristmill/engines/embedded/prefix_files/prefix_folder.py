"""The folder that prefix files of all models lie in, whole ones and those being written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gristmill.models.cache import cache_folder

SUFFIX = ".prefix"
_UNFINISHED = ".writing-"
_LOCK = ".lock"


class PrefixFileStatus(NamedTuple):
    """``size`` in bytes; ``used``: when last, in seconds since the epoch."""

    path: Path
    size: int
    used: float


def prefixes_folder() -> Path:
    return cache_folder() / "prefixes"


def prefix_files(folder: Path) -> list[PrefixFileStatus]:
    """Those of all models, whole or damaged. Raises OSError; a folder that is missing has none."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            found.append(PrefixFileStatus(path, status.st_size, status.st_mtime))
    return found


def remove_unfinished(folder: Path) -> None:
    """What processes that were killed had begun to write. Raises OSError."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Keeps other processes from making room, and from taking for left behind what has just been begun."""
    with open(folder / _LOCK, "ab", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def new_file(folder: Path) -> tuple[int, Path]:
    """An empty file without a name of its own yet; the folder is ``locked``. Whoever holds it writes it: one that
    nobody holds was left behind by a process that was killed. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor, Path(name)
