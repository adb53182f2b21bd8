"""A file that says, by a lock on it, that one process is at work; the lock goes with the process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

#: The holder writes its number just after it has the lock: whoever is refused waits this long (seconds) to name it.
_NAME_SECONDS = 1.0


class HeldElsewhere(Exception):
    """``holder`` is the id of the other process, as far as it is known."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def hold(path: Path, named: bool = False) -> int:
    """A descriptor of the file, made if need be and locked until it is closed. ``named``: the file holds the number of
    the process that has it and nothing else. Raises HeldElsewhere and OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor) if named else "unknown"
            os.close(descriptor)
            raise HeldElsewhere(holder) from None
        if _is_at(descriptor, path):
            break
        # Whoever held it has moved or removed it since we opened it.
        os.close(descriptor)
    if named:
        # Held without the number, too: there may be no room on the disk for it.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """The process that holds the lock: a number that an earlier holder left is of no living process."""
    deadline = time.monotonic() + _NAME_SECONDS
    while True:
        noted = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        if not noted.isdecimal():
            noted = ""
        if (noted and _lives(int(noted))) or time.monotonic() > deadline:
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
