"""The seam of a metadata store's upkeep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gristmill.storage.records import DatabaseSizes, NamedBlob


class Upkeep(Protocol):
    """What a store needs besides its use. Everything works beside processes that use it."""

    async def sizes(self) -> DatabaseSizes: ...
    async def give_back(self, keep: int, at_most: int) -> int:
        """Give space that is free inside to the disk, all but ``keep`` bytes; about ``at_most`` at a time, so that
        other writers get their turn. How many bytes; 0: there is no more, or it cannot be done in use."""
        ...

    async def rebuild(self) -> None:
        """Write the database anew, without what is free inside. Only for a process that is alone with it, and with room
        for as much again; it can take minutes."""
        ...

    async def copy_to(self, target: Path, progress: Callable[[int, int], None]) -> list[NamedBlob]:
        """A copy as of one moment, and the blobs it names; others write on meanwhile. ``progress`` is told in a thread,
        in pages. Raises DiskFull. Cut off, it leaves a part."""
        ...

    async def named_blobs(self) -> list[NamedBlob]: ...
    async def bytes_by_purpose(self) -> dict[str, int]:
        """Of the files whose bytes are kept."""
        ...
