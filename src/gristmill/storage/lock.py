"""A data folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gristmill.user_error import UserError


class FolderLock:
    """Held from ``acquire`` until ``release`` or the end of the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = -1

    def acquire(self) -> None:
        """Raises UserError where another process holds the folder, or it cannot be written."""
        path = self._folder / "lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"The data folder {self._folder} cannot be used ({error.strerror}): "
                "choose one you may write to with --data."
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise UserError(
                f"The data folder {self._folder} is in use by another Gristmill (process {holder}): "
                "stop that one, or choose another folder with --data."
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._file)
