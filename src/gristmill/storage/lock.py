"""What belongs to one process at a time: a data folder, and a database outside of it."""

from __future__ import annotations

import os
from pathlib import Path

from gristmill.held_file import HeldElsewhere, hold
from gristmill.storage.pressure import may_pass
from gristmill.storage.private import private_folder
from gristmill.user_error import NotNow, UserError


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
            private_folder(self._path.parent)
            self._file = hold(self._path, named=True)
        except HeldElsewhere as other:
            raise NotNow(
                f"{self._what} is in use by another Gristmill (process {other.holder}): "
                f"stop that one, or {self._advice}."
            ) from None
        except OSError as error:
            kind = NotNow if may_pass(error) else UserError
            raise kind(f"{self._what} cannot be used ({error.strerror}): {self._advice}.") from None

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
