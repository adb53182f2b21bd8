"""Space kept for when the disk is full: to delete a file, SQLite first has to write that it is deleted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: SQLite folds its write-ahead log back at 4 MB; so much for the log, and once more for the database it goes into.
MAX_BYTES = 8 * 1024 * 1024
#: Of a small disk, at most this share of what is free at first.
_SHARE = 16
_PIECE = 64 * 1024


class Reserve:
    """A file of nothing, beside the database. ``fill`` it while there is room, ``spend`` it when there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: How large it should be; None before that is known.
        self._wanted: int | None = None
        self._full = False

    def fill(self) -> None:
        """Take what the reserve lacks, or as much of it as there is; never an error."""
        if self._full:
            return
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._fill(file)
                self._full = True
            finally:
                os.close(file)

    def spend(self) -> None:
        """Give it all to the disk."""
        self._full = False
        with contextlib.suppress(FileNotFoundError):
            self._wanted = self._wanted or self._path.stat().st_size
            self._path.unlink()

    def _fill(self, file: int) -> None:
        size = os.fstat(file).st_size
        if self._wanted is None:
            space = os.fstatvfs(file)
            self._wanted = max(size, min(MAX_BYTES, space.f_bavail * space.f_frsize // _SHARE))
        while size < self._wanted:
            size += os.pwrite(file, bytes(min(_PIECE, self._wanted - size)), size)
