"""The seam of files, part of that of metadata (``protocol``): files, uploads, and blobs under way."""

from __future__ import annotations

from typing import Protocol

from gristmill.storage.records import (
    BlobWrite,
    FileRecord,
    PartRecord,
    RecordPage,
    UploadRecord,
    UsedKey,
)
from gristmill.storage.scope import Room


class Files(Protocol):
    async def add(self, file: FileRecord, key: UsedKey | None = None) -> None:
        """Raises KeyUsed, OverLimit."""
        ...

    async def get(self, file_id: str) -> FileRecord | None:
        """None for unknown and deleted files."""
        ...

    async def get_kept(self, file_id: str, reader: str | None) -> FileRecord | None:
        """What a batch of the key ``reader`` may read: a file of the same key, or any for an admin's key and for None.
        A deleted one, too, as long as its bytes are kept for a batch that reads it."""
        ...

    async def page(
        self, *, after: str | None, limit: int, newest_first: bool, purpose: str | None, now: int | None = None
    ) -> RecordPage:
        """Without what has expired by ``now``, in Unix seconds."""
        ...

    async def delete(self, file_id: str) -> bool:
        """Forget the file at once; its bytes go when no unfinished batch reads them (see ``garbage``)."""
        ...

    async def room(self) -> Room | None:
        """For files and parts of uploads in this scope; None: no limit."""
        ...

    async def delete_expired(self, now: int) -> int: ...
    async def garbage(self) -> list[str]:
        """Ids of deleted files whose bytes are still there and that no unfinished batch reads."""
        ...

    async def mark_erased(self, file_id: str) -> None: ...


class Uploads(Protocol):
    async def add(self, upload: UploadRecord, key: UsedKey | None = None) -> None:
        """Raises KeyUsed."""
        ...

    async def get(self, upload_id: str) -> UploadRecord | None: ...
    async def add_part(self, part: PartRecord) -> bool:
        """False if the upload is no longer pending. Raises OverLimit."""
        ...

    async def parts(self, upload_id: str) -> list[PartRecord]: ...
    async def end(
        self, upload_id: str, status: str, file: FileRecord | None = None, key: UsedKey | None = None
    ) -> bool:
        """From pending to completed (with its file, which belongs to whom the upload belongs), cancelled or expired;
        False if it was not pending. Raises KeyUsed, OverLimit."""
        ...

    async def overdue(self, now: int) -> list[str]:
        """Ids of pending uploads past their hour."""
        ...

    async def forget_parts(self, upload_id: str) -> None: ...


class BlobWrites(Protocol):
    """Blobs under way, so that bytes which no record names can be found. A record that names a blob (``Files.add``,
    ``Uploads.add_part`` and ``end``, ``Batches.add`` and ``change``) ends its write in the same step; where the write
    was given up by then, it raises WriteGivenUp and nothing is stored."""

    async def begin(self, path: str, owner: str) -> None:
        """``owner`` is about to write ``path``; whoever began to before has given up."""
        ...

    async def under_way(self, path: str, owner: str) -> bool:
        """Whether ``owner`` has begun and no record names the blob; after every change that was asked for before."""
        ...

    async def end(self, path: str, owner: str) -> None: ...
    async def of_the_dead(self, owner: str) -> list[BlobWrite]:
        """What others than ``owner`` have begun, and no server that is there; not what was freed in the last day."""
        ...

    async def give_up(self, path: str, owner: str) -> bool:
        """That nobody may name what ``owner`` was writing: it may be no more than slow. False where a record names it
        by now, or another has begun it anew."""
        ...

    async def note_freed(self, path: str, owner: str) -> None:
        """Of what was given up."""
        ...
