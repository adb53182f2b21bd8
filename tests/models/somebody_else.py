"""Another user, for tests of what may not be read: root may read everything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def somebody_else() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def opened_to_all(folder: Path) -> None:
    """pytest's own folders are its user's alone."""
    for each in (folder, *folder.parents[:3]):
        if each.stat().st_uid == os.geteuid():
            each.chmod(0o755)
