"""What is stored here is for its owner alone: folders 0700, files 0600, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

#: How the names of what we keep in a data folder begin.
_OURS = ("lock", "gristmill.db", "answers.db", "blobs", "scoring", "scratch", "job", "ending", "held", "restoring")


def private_folder(folder: Path) -> None:
    """Make ``folder``; its parents, where they are missing, as usual. One that is there stays as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        return
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))


def tighten(folder: Path) -> None:
    """Make private what an earlier version left readable for others: what is ours in a data folder, and the folder if
    there is nothing else in it."""
    only_ours = True
    for entry in folder.iterdir():
        if not entry.name.startswith(_OURS):
            only_ours = False
        elif entry.is_dir() and not entry.is_symlink():
            tighten_tree(entry)
        else:
            make_private(entry)
    if only_ours:
        make_private(folder)


def tighten_tree(folder: Path) -> None:
    make_private(folder)
    for path in folder.rglob("*"):
        make_private(path)


def private_file(path: Path) -> None:
    """Make ``path`` where it is missing, before somebody makes it readable for all."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    make_private(path)


def make_private(path: Path) -> None:
    """Take everyone else's rights to a file or folder of ours. Not to what a symbolic link points to: that is the
    user's."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077:
            path.chmod(found.st_mode & 0o700)
