"""How much room a disk has for what is stored on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class DiskRoom(NamedTuple):
    """``device`` tells one file system from another; ``free`` bytes are there for us, of ``size``."""

    device: int
    free: int
    size: int


def room_of(path: Path | str) -> DiskRoom:
    """Of the disk that ``path`` is on. Raises OSError."""
    space = os.statvfs(path)
    return DiskRoom(os.stat(path).st_dev, space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)  # noqa: PTH116
