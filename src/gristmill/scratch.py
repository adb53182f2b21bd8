"""Folders for the time of a command; what killed commands left behind goes when the next one comes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gristmill.held_file import HeldElsewhere, hold
from gristmill.user_error import UserError

_LOCK = "held"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, removed afterwards. Raises UserError where nothing can be written there."""
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in parent.iterdir():
            _remove_if_left(folder)
        folder, lock = _made(parent)
    except OSError as error:
        raise UserError(f"Nothing can be written to {parent}: {error.strerror}.") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            return folder, hold(folder / _LOCK)
        except (HeldElsewhere, FileNotFoundError):
            continue  # Another process took it for one that was left behind: it was not locked yet.


def _remove_if_left(folder: Path) -> None:
    try:
        lock = hold(folder / _LOCK)
    except (HeldElsewhere, FileNotFoundError, NotADirectoryError):
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
