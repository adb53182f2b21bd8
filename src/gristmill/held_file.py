"""A file that says, by a lock on it, that one process is at work; the lock goes with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class HeldElsewhere(Exception):
    """``holder`` is the id of the other process, as far as it is known."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def hold(path: Path) -> int:
    """A descriptor of the file, made if need be and locked until it is closed. Raises HeldElsewhere and OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise HeldElsewhere(holder if holder.isdecimal() else "unknown") from None
        if _is_at(descriptor, path):
            return descriptor
        # Whoever held it has moved or removed it since we opened it.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
