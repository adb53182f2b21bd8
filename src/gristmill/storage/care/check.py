"""Checking what is stored: is it whole, does it agree with itself, and are there bytes that nobody needs?"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from gristmill.counted import counted
from gristmill.finding import Finding
from gristmill.storage.blob_store import StoredBlob
from gristmill.storage.care.manifest import BLOB_FOLDERS, is_blob_path
from gristmill.storage.errors import BlobLost, StorageError
from gristmill.storage.open import Places, StorageSettings, open_beside, places
from gristmill.storage.protocol import Storage
from gristmill.user_error import UserError

#: Of a kind, told one by one.
_TOLD = 20
#: Younger ones may be of somebody who has not said so yet, such as a server of before ``blob_writes`` that still runs.
REPAIR_AGE_SECONDS = 24 * 3600


class Orphan(NamedTuple):
    """Bytes in the blob store that no record names; ``age`` in seconds."""

    path: str
    bytes: int
    age: float


async def check(settings: StorageSettings, repair: bool, now: float) -> list[Finding]:
    """``repair``: free the bytes that nobody needs. Everything else is only read, in short steps, but for the look at
    the database as a whole: that one takes as long as reading it, and holds up nobody. Raises UserError."""
    where = places(settings)
    try:
        async with open_beside(settings) as storage:
            return [
                *await _database(storage),
                *await _agreement(storage),
                *await _leases(storage, where, now),
                *await _blobs(storage),
                await _orphans(storage, repair, now),
            ]
    except StorageError as error:
        raise UserError(f"The data cannot be checked: {error}") from error


async def _database(storage: Storage) -> list[Finding]:
    wrong = await storage.metadata.upkeep.integrity()
    if not wrong:
        return [Finding("database", "ok", "The database is whole.")]
    advice = "Restore a backup: gristmill admin restore. The disk or the memory of the machine may be failing."
    return [Finding("database", "problem", each, advice) for each in wrong]


async def _agreement(storage: Storage) -> list[Finding]:
    found = await storage.metadata.upkeep.disagreements()
    if not found:
        return [Finding("batches", "ok", "Counts, rows and results agree.")]
    advice = "Cancel the batch, and submit its input again; please report it with the log."
    return [Finding("batches", "problem", f"{of}: {what}.", advice) for of, what in found]


async def _leases(storage: Storage, where: Places, now: float) -> list[Finding]:
    leases = await storage.metadata.upkeep.leases()
    held_batches = counted(len(leases), "batch", "batches")
    with contextlib.ExitStack() as held:
        if where.alone(held):
            what = f"No server runs; one that has ended holds {held_batches}, and the next goes on with them."
            return [Finding("leases", "note", what, "Start the server.")] if leases else []
    late = [lease for lease in leases if lease.until < now]
    advice = "See the server's log: it may be stopped, or out of disk."
    working = f"A server runs, and works on {held_batches}."
    if where.database is None:
        working = f"Servers work on {held_batches}."
    return [
        Finding("leases", "problem", f"{batch_id}: its server has not renewed its lease for too long.", advice)
        for batch_id, _, _ in late
    ] or [Finding("leases", "ok", working)]


async def _blobs(storage: Storage) -> list[Finding]:
    named = await storage.metadata.upkeep.named_blobs()
    there = {blob.path: blob.bytes for blob in await _listed(storage)}
    # All are listed at once: of an object store, to ask for each takes a request.
    doubtful = [(path, size) for path, size in named if not is_blob_path(path) or there.get(path) != size]
    wrong = {path: what for path, size in doubtful if (what := await _wrong(storage, path, size)) is not None}
    if wrong:
        # Some may have been deleted since.
        still = {path for path, _ in await storage.metadata.upkeep.named_blobs()}
        wrong = {path: what for path, what in wrong.items() if path in still}
    if not wrong:
        total = sum(size for _, size in named)
        return [Finding("files", "ok", f"All files are there: {len(named):,}, of {total:,} bytes.")]
    advice = "Restore them from a backup, or delete the file: gristmill files rm."
    told = [Finding("files", "problem", f"{path} {what}.", advice) for path, what in list(wrong.items())[:_TOLD]]
    if more := len(wrong) - _TOLD:
        told += [Finding("files", "problem", f"{more:,} more are gone or cut off.", advice)] if more > 0 else []
    return told


async def _wrong(storage: Storage, path: str, size: int) -> str | None:
    if not is_blob_path(path):
        return "is no name of a file of Gristmill's"
    try:
        there = await storage.blobs.size(path)
    except BlobLost:
        return "is gone"
    return None if there == size else f"has {there:,} bytes instead of {size:,}"


async def _orphans(storage: Storage, repair: bool, now: float) -> Finding:
    found = await find_orphans(storage, now)
    if not found:
        return Finding("orphans", "ok", "All bytes in the blob store belong to a file or upload.")
    removed = await _remove(storage, found) if repair else []
    left = [orphan for orphan in found if orphan not in removed]
    detail = f"{_amount(left)} belong to nothing."
    if removed:
        detail = f"{_amount(removed)} that belonged to nothing were removed" + (f"; {detail}" if left else ".")
    if not left:
        return Finding("orphans", "ok", detail)
    hours = REPAIR_AGE_SECONDS // 3600
    old = [orphan for orphan in left if orphan.age >= REPAIR_AGE_SECONDS]
    advice = f"Remove them: gristmill admin check --repair ({_amount(old)} of them are older than {hours} hours)."
    young = f"They are younger than {hours} hours: somebody may be about to name them. Check again then."
    return Finding("orphans", "note", detail, advice if old else young)


def _amount(orphans: list[Orphan]) -> str:
    return f"{len(orphans):,} blobs with {sum(orphan.bytes for orphan in orphans):,} bytes"


async def find_orphans(storage: Storage, now: float) -> list[Orphan]:
    """Also those that a kill left before writes were announced."""
    # Looked for first: what is named or announced only then was so before its first byte.
    found = await _listed(storage)
    unnamed = await storage.metadata.upkeep.unnamed({_whole(blob.path) for blob in found})
    orphaned = {blob.path for blob in found if _whole(blob.path) in unnamed}
    still_there = await _listed(storage) if orphaned else []
    return [Orphan(blob.path, blob.bytes, now - blob.modified) for blob in still_there if blob.path in orphaned]


async def _listed(storage: Storage) -> list[StoredBlob]:
    return [blob for folder in BLOB_FOLDERS async for some in storage.blobs.entries(folder) for blob in some]


def _whole(path: str) -> str:
    """The blob that a staged write (``name#1``) is to become."""
    return path.partition("#")[0]


async def _remove(storage: Storage, orphans: list[Orphan]) -> list[Orphan]:
    """Those that were old enough. A clock that was set forward or back makes some look younger than they are."""
    old = [orphan for orphan in orphans if orphan.age >= REPAIR_AGE_SECONDS]
    for orphan in old:
        await storage.blobs.discard(orphan.path)
    return old
