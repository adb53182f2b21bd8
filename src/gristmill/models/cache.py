"""Where pulled models are kept: the user's cache folder, so that every checkout and version shares them."""

from __future__ import annotations

import os
from pathlib import Path

from gristmill.user_path import user_path


def cache_folder() -> Path:
    """``GRISTMILL_CACHE``, else ``gristmill`` in ``XDG_CACHE_HOME``, else ``~/.cache/gristmill``.

    The folder may not exist yet: whoever writes makes it, with ``make_private``.
    """
    chosen = os.environ.get("GRISTMILL_CACHE")
    if chosen:
        return user_path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    base = Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache"
    return base / "gristmill"


def make_private(folder: Path) -> None:
    """Make ``folder`` and those above it; what is new is for this user alone. Raises OSError."""
    for each in reversed((folder, *folder.parents)):
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)


def writable_by_others(folder: Path) -> bool:
    """Whether somebody else can have put something into ``folder``. Raises OSError."""
    found = folder.stat()
    return found.st_uid != os.geteuid() or bool(found.st_mode & 0o022)


# Three folders, so that a catalog name, an organisation on the hub and a file of the user's never collide.


def catalog_folder(name: str) -> Path:
    """Where the catalog model ``name`` is kept."""
    return cache_folder() / "models" / "catalog" / name


def hub_folder(repo: str) -> Path:
    """Where the files of the hub repository ``organisation/name`` are kept."""
    return cache_folder() / "models" / "hub" / repo


def imported_folder(name: str) -> Path:
    """Where the copy of a model pulled from a local path is kept."""
    return cache_folder() / "models" / "imported" / name
