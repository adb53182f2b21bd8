"""The seam of a metadata store's upkeep, part of that of metadata (``protocol``), and what is told through it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from gristmill.storage.disk_room import DiskRoom


class NamedBlob(NamedTuple):
    """A blob that a record names, and how many bytes it has to have."""

    path: str
    bytes: int


class CurrentLease(NamedTuple):
    """On an unfinished batch; ``until`` in Unix seconds."""

    batch_id: str
    owner: str
    until: float


class Disagreement(NamedTuple):
    """Two things that are stored ``of`` a batch or file, and that cannot both be true."""

    of: str
    what: str


class Prunable(NamedTuple):
    """Batches that ended before some time, and the files that only they name: how many, and how many bytes."""

    batches: int
    files: int
    file_bytes: int


class DatabaseSizes(NamedTuple):
    """In bytes: the whole, what of it is free inside, to be used again, and a page. ``gives_back``: whether the free
    part can be given to the disk while the database is used."""

    bytes: int
    free: int
    page: int
    gives_back: bool


class Upkeep(Protocol):
    """What a store needs besides its use. Everything works beside processes that use it."""

    async def sizes(self) -> DatabaseSizes: ...
    async def disk(self) -> DiskRoom | None:
        """Of the disk that the database is on; None where it is a server's. Raises OSError."""
        ...

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

    async def prunable(self, ended_before: int) -> Prunable:
        """What ``Batches.prune`` would forget, and ``delete_files_of`` delete."""
        ...

    async def delete_files_of(self, ended_before: int) -> int:
        """Delete the inputs and results of batches that ``Batches.prune`` would forget, but not what another batch
        names; how many files."""
        ...

    async def forget_remains(self, before: int) -> int:
        """Forget what is left of files and uploads from before then that are gone: until then their ids are cursors of
        lists. How many."""
        ...

    async def integrity(self) -> list[str]:
        """What is wrong with the database as such, in its own words; at most some of it. A long read."""
        ...

    async def disagreements(self) -> list[Disagreement]:
        """What is stored and cannot be true, found by a short read for each batch."""
        ...

    async def leases(self) -> list[CurrentLease]: ...
    async def unnamed(self, paths: Collection[str]) -> set[str]:
        """Those of ``paths`` that no record names and nobody has announced to write."""
        ...
