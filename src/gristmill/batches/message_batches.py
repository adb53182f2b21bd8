"""Batches as Anthropic's API shows them: the same ones, of the endpoint ``/v1/messages``, whoever made them.

``msgbatch_X`` is the batch ``batch_X``. One that was made of an array of requests has an input file like any other,
``file-X``, which goes with it.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Literal

from gristmill.batches import lifecycle
from gristmill.batches.finalization import FILE_LIFETIME
from gristmill.batches.service import BatchService
from gristmill.inference import messages
from gristmill.storage.errors import StorageError
from gristmill.storage.housekeeping import erase_deleted
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, FileRecord, UsedKey
from gristmill.telemetry.log import get_logger
from gristmill.wire.errors import ApiError, clip, not_found
from gristmill.wire.message_batches import (
    MessageBatch,
    MessageBatchCounts,
    MessageBatchDeleted,
    MessageBatchPage,
)

log = get_logger(__name__)

WINDOW = "24h"
_PREFIX, _OWN_PREFIX, _FILE_PREFIX = "msgbatch_", "batch_", "file-"


def new_name() -> str:
    """What the ids of a new batch and of its input have in common."""
    return secrets.token_hex(16)


def input_file_id(name: str) -> str:
    return _FILE_PREFIX + name


class MessageBatches:
    """``results`` is the URL of a batch's results, with ``{}`` for its id."""

    def __init__(self, storage: Storage, batches: BatchService) -> None:
        self._storage = storage
        self._batches = batches

    async def create(self, name: str, total: int, size: int, lifetime: int, key: UsedKey | None) -> MessageBatch:
        """A batch of ``total`` requests, whose input of ``size`` bytes has been written; it is kept for ``lifetime``
        seconds. Raises KeyUsed."""
        now = int(time.time())
        file = FileRecord(input_file_id(name), size, now, f"{_PREFIX}{name}.jsonl", "batch", now + lifetime)
        record = BatchRecord(
            seq=0,
            id=_OWN_PREFIX + name,
            endpoint=messages.PATH,
            input_file_id=file.id,
            completion_window=WINDOW,
            status=lifecycle.VALIDATING,
            created_at=now,
            expires_at=now + (lifecycle.window_seconds(WINDOW) or 0),
            total=total,
        )
        created = present(record, "")
        await self._batches.add(record, None if key is None else key.answered(created), [file])
        return created

    async def get(self, batch_id: str, results: str) -> MessageBatch:
        return present(await self.record(batch_id), results)

    async def page(self, after: str | None, before: str | None, limit: int, results: str) -> MessageBatchPage:
        """Raises UnknownCursor."""
        page = await self._storage.metadata.batches.page(
            after=_own_id(after), before=_own_id(before), limit=limit, endpoint=messages.PATH
        )
        data = [present(record, results) for record in page.records]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return MessageBatchPage(data, page.has_more, first, last)

    async def cancel(self, batch_id: str, results: str) -> MessageBatch:
        record = await self.record(batch_id)
        return present(await self._batches.cancelled(record.id), results)

    async def delete(self, batch_id: str) -> MessageBatchDeleted:
        """With its results, and the input that was made for it. Raises ApiError where it has not ended."""
        record = await self.record(batch_id)
        if not lifecycle.is_terminal(record.status):
            message = f"Message Batch {clip(batch_id)} has not ended, so it cannot be deleted. Cancel it first."
            raise ApiError(400, message)
        own_input = input_file_id(record.id.removeprefix(_OWN_PREFIX))
        files = [each for each in (record.output_file_id, record.error_file_id) if each is not None]
        files += [own_input] if record.input_file_id == own_input else []
        if not await self._storage.metadata.batches.delete(record.id, files):
            raise _unknown(batch_id)
        try:
            await erase_deleted(self._storage)
        except StorageError as error:
            # They are gone for everybody; housekeeping frees the bytes.
            log.warning("a deleted batch's bytes are still there", batch=record.id, reason=str(error))
        return MessageBatchDeleted(batch_id)

    async def record(self, batch_id: str) -> BatchRecord:
        """Raises ApiError 404."""
        own_id = _own_id(batch_id)
        record = await self._storage.metadata.batches.get(own_id) if batch_id.startswith(_PREFIX) and own_id else None
        if record is None or record.endpoint != messages.PATH:
            raise _unknown(batch_id)
        return record


def present(record: BatchRecord, results: str) -> MessageBatch:
    """The batch object of Anthropic's API; ``results`` is the URL of its results, with ``{}`` for its id."""
    batch_id = _PREFIX + record.id.removeprefix(_OWN_PREFIX)
    ended_at = record.completed_at or record.failed_at or record.expired_at or record.cancelled_at
    archived_at = None if ended_at is None else ended_at + (record.output_file_lifetime or FILE_LIFETIME)
    if archived_at is not None and archived_at > time.time():
        archived_at = None
    has_results = archived_at is None and (record.output_file_id or record.error_file_id)
    return MessageBatch(
        id=batch_id,
        processing_status=_status(record),
        request_counts=_counts(record),
        created_at=_told(record.created_at),
        expires_at=_told(record.expires_at),
        ended_at=None if ended_at is None else _told(ended_at),
        cancel_initiated_at=None if record.cancelling_at is None else _told(record.cancelling_at),
        archived_at=None if archived_at is None else _told(archived_at),
        results_url=results.format(batch_id) if has_results else None,
    )


def _status(record: BatchRecord) -> Literal["in_progress", "canceling", "ended"]:
    if lifecycle.is_terminal(record.status):
        return "ended"
    return "canceling" if record.status == lifecycle.CANCELLING else "in_progress"


def _counts(record: BatchRecord) -> MessageBatchCounts:
    counts = MessageBatchCounts(succeeded=record.completed, errored=record.failed)
    open_rows = record.total - record.completed - record.failed
    match record.status:
        case lifecycle.CANCELLED:
            counts.canceled = open_rows
        case lifecycle.EXPIRED:
            counts.expired = open_rows
        case lifecycle.FAILED:
            counts.errored += open_rows
        case _:
            counts.processing = open_rows
    return counts


def _own_id(batch_id: str | None) -> str | None:
    """Of what is no id of a message batch, one that no batch has."""
    return None if batch_id is None else _OWN_PREFIX + batch_id.removeprefix(_PREFIX)


def _told(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _unknown(batch_id: str) -> ApiError:
    return not_found(f"Message Batch {clip(batch_id)} not found.")
