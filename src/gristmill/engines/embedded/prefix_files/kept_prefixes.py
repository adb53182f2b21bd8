"""What there is of prefixes on disk, of all models, for people: to look at, and to remove."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from gristmill.engines.embedded.prefix_files.prefix_file import DamagedError, PrefixFile
from gristmill.engines.embedded.prefix_files.prefix_folder import prefix_files, remove_unfinished


class KeptPrefix(NamedTuple):
    """``model``: what requests called it; ``made_by`` begins with the engine's name. Of a file that is damaged both are
    empty, and there are no ``tokens``. ``size`` in bytes; ``used``: when last, in seconds since the epoch."""

    path: Path
    model: str
    made_by: str
    tokens: int
    size: int
    used: float


def kept_prefixes(folder: Path) -> list[KeptPrefix]:
    """The one used last first. Raises OSError."""
    found = []
    for path, size, used in sorted(prefix_files(folder), key=lambda each: -each.used):
        with contextlib.suppress(FileNotFoundError):
            try:
                with PrefixFile(path) as file:
                    kept = KeptPrefix(path, file.heading.model, file.heading.made_by, file.heading.count, size, used)
            except DamagedError:
                kept = KeptPrefix(path, "", "", 0, size, used)
            found.append(kept)
    return found


def made_from(prefixes: list[KeptPrefix], sha256: str) -> list[KeptPrefix]:
    """Those of models with a file of that digest."""
    return [each for each in prefixes if sha256 in each.made_by]


def remove_prefixes(folder: Path, prefixes: list[KeptPrefix]) -> int:
    """An engine that is reading one reads on. Returns the bytes that are free. Raises OSError."""
    remove_unfinished(folder)
    for each in prefixes:
        each.path.unlink(missing_ok=True)
    return sum(each.size for each in prefixes)
