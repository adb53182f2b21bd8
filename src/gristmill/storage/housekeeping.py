"""Housekeeping: expired files, abandoned uploads, and what a kill left behind."""

from __future__ import annotations

import asyncio
import time

from gristmill.storage.answers import AnswerStore
from gristmill.storage.protocol import Storage
from gristmill.storage.records import file_blob, part_blob
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

INTERVAL_SECONDS = 60.0
#: Free inside the database, for the batches to come: what every batch would take again and give back need not move.
KEEP_FREE_BYTES = 64 * 1024 * 1024
#: So many bytes of the database in one transaction, and seconds in between for those who store results.
_GIVEN_AT_ONCE = 4 * 1024 * 1024
_GIVING_PAUSE = 0.05
#: Of webhooks, sent or dead; as long as result files are kept by default.
KEEP_DELIVERIES_SECONDS = 30 * 86400
#: Of the audit log: a year, and what it takes to look back at one.
KEEP_AUDIT_SECONDS = 400 * 86400
#: Of it: whoever has no key can add to it, with keys that are not right. They take some 125 MB.
KEEP_AUDIT_ENTRIES = 1_000_000


async def keep_house(storage: Storage, answers: AnswerStore, keep_batches: int | None) -> None:
    """Tidy up now and then, for ever; a failure is logged and tried again. Ended batches are forgotten after
    ``keep_batches`` seconds; None: never."""
    while True:
        try:
            now = int(time.time())
            await tidy(storage, now)
            if keep_batches is not None:
                await forget_batches(storage, now - keep_batches)
            await answers.prune()
            await give_back(storage, KEEP_FREE_BYTES)
        except Exception as error:
            log.warning("housekeeping failed", exc_info=error)
        await asyncio.sleep(INTERVAL_SECONDS)


async def tidy(storage: Storage, now: int) -> None:
    for batch_seq in await storage.metadata.rows.leftovers():
        await storage.metadata.rows.clear_ended(batch_seq)
    for upload_id in await storage.metadata.uploads.overdue(now):
        if await storage.metadata.uploads.end(upload_id, "expired"):
            await drop_parts(storage, upload_id)
    await storage.metadata.files.delete_expired(now)
    await storage.metadata.keys.delete_expired(now)
    while await storage.metadata.deliveries.delete_ended(now - KEEP_DELIVERIES_SECONDS):
        pass
    await storage.metadata.login_sessions.delete_expired(now)
    await storage.metadata.audit_log.delete_old(now - KEEP_AUDIT_SECONDS, KEEP_AUDIT_ENTRIES)
    await erase_deleted(storage)
    blobs, size = await storage.new_blobs.free_unnamed()
    if blobs:
        log.info("bytes that no record names were freed", blobs=blobs, bytes=size)


async def forget_batches(storage: Storage, ended_before: int) -> None:
    """Their records; their files have lifetimes of their own."""
    while forgotten := await storage.metadata.batches.prune(ended_before):
        log.info("ended batches were forgotten", batches=forgotten)


async def give_back(storage: Storage, keep: int) -> int:
    """Give the disk the space that is free inside the database, all but ``keep`` bytes; how many bytes."""
    given = 0
    while step := await storage.metadata.upkeep.give_back(keep, _GIVEN_AT_ONCE):
        given += step
        await asyncio.sleep(_GIVING_PAUSE)
    if given:
        log.info("the database gave back space", bytes=given)
    return given


async def erase_deleted(storage: Storage) -> None:
    """Free the bytes of deleted files that no unfinished batch reads."""
    for file_id in await storage.metadata.files.garbage():
        await storage.blobs.delete(file_blob(file_id))
        await storage.metadata.files.mark_erased(file_id)


async def drop_parts(storage: Storage, upload_id: str) -> None:
    """Free the parts of an upload that has ended."""
    for part in await storage.metadata.uploads.parts(upload_id):
        await storage.blobs.delete(part_blob(part.id))
    await storage.metadata.uploads.forget_parts(upload_id)
