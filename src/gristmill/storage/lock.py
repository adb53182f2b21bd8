"""What belongs to one process at a time: a data folder, and a database outside of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from gristmill.user_error import UserError

#: The holder writes its number just after it has the lock: whoever is refused waits this long (seconds) to name it.
_NAME_SECONDS = 1.0


class ProcessLock:
    """On the file ``path``, held from ``acquire`` until ``release`` or the end of the process, however it ends.

    ``what`` and ``advice`` are for the sentence that tells a second process.
    """

    def __init__(self, path: Path, what: str, advice: str) -> None:
        self._path = path
        self._what = what
        self._advice = advice
        self._file = -1

    def acquire(self) -> None:
        """Raises UserError where another process holds the lock, or its file cannot be opened."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(f"{self._what} cannot be used ({error.strerror}): {self._advice}.") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(file)
            os.close(file)
            raise UserError(
                f"{self._what} is in use by another Gristmill (process {holder}): stop that one, or {self._advice}."
            ) from None
        self._file = file
        # The lock is held without the number, too: there may be no room on the disk for it.
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def folder_lock(folder: Path) -> ProcessLock:
    return ProcessLock(folder / "lock", f"The data folder {folder}", "choose another folder with --data")


def database_lock(database: Path) -> ProcessLock:
    """For a database outside of the data folder, which several data folders may name."""
    path = database.with_name(database.name + ".lock")
    return ProcessLock(path, f"The database {database}", "choose another one with --database")


def _holder(file: int) -> str:
    """The process that holds the lock: a number that an earlier holder left is of no living process."""
    deadline = time.monotonic() + _NAME_SECONDS
    while True:
        noted = os.pread(file, 32, 0).decode("ascii", "replace").strip()
        if (noted.isdecimal() and _lives(int(noted))) or time.monotonic() > deadline:
            return noted or "unknown"
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
