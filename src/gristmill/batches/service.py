"""What can be asked of batches: create, look at, cancel, pause, retry. HTTP API and command line call this."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

import msgspec

from gristmill.batches import lifecycle
from gristmill.batches.batch_object import present
from gristmill.batches.retry import retrying
from gristmill.inference.endpoints import offered
from gristmill.notify.addresses import NO_OTHER_HOSTS, AllowedHosts
from gristmill.notify.webhooks import webhook_of
from gristmill.storage.errors import AlreadyRetried
from gristmill.storage.protocol import Storage
from gristmill.storage.records import (
    BatchRecord,
    Changes,
    FileRecord,
    UsedKey,
)
from gristmill.wire.batch import (
    Batch,
    BatchProgress,
    CreateBatchRequest,
)
from gristmill.wire.common import ListPage
from gristmill.wire.errors import ApiError, clip, invalid_value, not_found, string_too_long, wrong_type
from gristmill.wire.json import decode, encode, type_of

_string_decoder = msgspec.json.Decoder(str)

#: As JSON; a quarter of a million tokens, more than any prompt holds.
MAX_DEFAULTS_BYTES = 1024 * 1024
#: Objects and arrays within each other; Python ends at less than a thousand, and not everywhere at the same number.
_MAX_DEFAULTS_DEPTH = 256
_MAX_METADATA = 16
_MAX_KEY = 64
_MAX_VALUE = 512


class Work(Protocol):
    """Who runs batches; the supervisor."""

    def wake(self) -> None: ...
    def changed(self, stored: BatchRecord) -> None: ...
    def progress(self, batch: BatchRecord) -> BatchProgress | None: ...


class BatchService:
    """``served`` tells which endpoints the engine answers; ``webhook_hosts`` which hosts batches may tell of their end,
    besides public ones."""

    def __init__(
        self,
        storage: Storage,
        work: Work,
        served: Callable[[], Set[str]],
        webhook_hosts: AllowedHosts = NO_OTHER_HOSTS,
    ) -> None:
        self._storage = storage
        self._batches = storage.metadata.batches
        self._work = work
        self._served = served
        self._webhook_hosts = webhook_hosts

    async def create(self, request: CreateBatchRequest, key: UsedKey | None = None) -> Batch:
        """Answers at once; the file is validated later. Raises ApiError for what the request itself has wrong, KeyUsed
        where a request with this ``key`` has created a batch before."""
        now = int(time.time())
        record = BatchRecord(
            seq=0,
            id="batch_" + secrets.token_hex(16),
            endpoint=self.endpoint(request.endpoint),
            input_file_id=request.input_file_id,
            completion_window=request.completion_window,
            status=lifecycle.VALIDATING,
            created_at=now,
            expires_at=now + _window(request.completion_window),
            metadata=_metadata(request.metadata),
            defaults=_defaults(request.defaults),
            priority=request.priority,
            reuse_answers=request.reuse_answers,
            output_file_lifetime=request.output_expires_after.seconds if request.output_expires_after else None,
            webhook=None if request.webhook is None else webhook_of(request.webhook, self._webhook_hosts),
        )
        made_secret = request.webhook is not None and request.webhook.secret is None
        created = present(record, self._work.progress(record), with_secret=made_secret)
        await self.add(record, None if key is None else key.answered(created))
        return created

    def endpoint(self, path: str) -> str:
        """Raises ApiError for one that no batch can be made of here."""
        paths = offered(self._served())
        if path not in paths:
            raise invalid_value("endpoint", path, ", ".join(f"'{each}'" for each in paths))
        return path

    async def add(self, record: BatchRecord, key: UsedKey | None = None, files: Sequence[FileRecord] = ()) -> None:
        """A new batch, with ``files`` that are added in the same step. Raises KeyUsed."""
        await self._batches.add(record, key, files)
        self._work.wake()

    async def get(self, batch_id: str) -> Batch:
        return self._present(await self.record(batch_id))

    async def page(self, after: str | None, limit: int, ended: bool | None = None) -> ListPage[Batch]:
        """Newest first; with ``ended`` only those that have, or have not. Raises UnknownCursor."""
        page = await self._batches.page(after=after, limit=limit, ended=ended)
        data = [self._present(record) for record in page.records]
        first, last = (data[0].id, data[-1].id) if data else ("", "")
        return ListPage(data, first, last, page.has_more)

    async def cancel(self, batch_id: str) -> Batch:
        """Raises ApiError 404, or 409 where the batch has ended some other way."""
        return self._present(await self.cancelled(batch_id))

    async def cancelled(self, batch_id: str) -> BatchRecord:
        """As ``cancel``, which says how it stands then."""
        now = int(time.time())
        return await self._changed(batch_id, "cancel", lambda record: lifecycle.cancel_requested(record.status, now))

    async def pause(self, batch_id: str) -> Batch:
        """Its status stays. Raises ApiError 404, or 409 where there is nothing left to pause."""
        now = int(time.time())
        return self._present(
            await self._changed(batch_id, "pause", lambda record: lifecycle.pause_requested(record, now))
        )

    async def resume(self, batch_id: str) -> Batch:
        """Also of one that is not paused. Raises ApiError 404, or 409 where there is nothing left to run."""
        return self._present(await self._changed(batch_id, "resume", lifecycle.resume_requested))

    async def set_priority(self, batch_id: str, priority: int) -> Batch:
        """From -5 to 5; at once. Raises ApiError 404, or 409 where there is nothing left to run."""
        return self._present(
            await self._changed(
                batch_id, "change the priority of", lambda record: lifecycle.priority_requested(record, priority)
            )
        )

    async def retry(self, batch_id: str, key: UsedKey | None = None) -> Batch:
        """A new batch that asks the rows again which have no answer in an ended one, or in the last of its retries;
        where that has not ended, it. Raises ApiError 404, or 409 where nothing can be retried, and KeyUsed."""
        if key is not None:
            await self._storage.metadata.keys.check(key)
        while True:
            asked = await self.record(batch_id)
            last = await self._last_retry(asked)
            if last is not asked and not lifecycle.is_terminal(last.status):
                return self._present(last)
            self.endpoint(last.endpoint)
            with contextlib.suppress(AlreadyRetried):
                name = secrets.token_hex(16)
                # Named alike, as those of a message batch are: they are deleted together.
                async with retrying(self._storage, last, f"file-{name}") as made:
                    now = int(time.time())
                    record = BatchRecord(
                        seq=0,
                        id=f"batch_{name}",
                        endpoint=last.endpoint,
                        input_file_id=made.input_file_id,
                        completion_window=last.completion_window,
                        status=lifecycle.VALIDATING,
                        created_at=now,
                        expires_at=now + _window(last.completion_window),
                        total=made.rows,
                        metadata=last.metadata,
                        defaults=last.defaults,
                        priority=last.priority,
                        reuse_answers=last.reuse_answers,
                        output_file_lifetime=last.output_file_lifetime,
                        webhook=last.webhook,
                        key_id=last.key_id,
                        retry_of=last.id,
                    )
                    created = self._present(record)
                    await self.add(record, None if key is None else key.answered(created), made.files)
                return created

    async def _last_retry(self, record: BatchRecord) -> BatchRecord:
        """Also of one that was forgotten, the last is the one before."""
        while record.retried_by is not None and (later := await self._batches.get(record.retried_by)) is not None:
            record = later
        return record

    async def _changed(self, batch_id: str, what: str, decide: Callable[[BatchRecord], Changes | None]) -> BatchRecord:
        while True:
            record = await self.record(batch_id)
            try:
                changes = decide(record)
            except lifecycle.NotAllowed:
                message = f"Cannot {what} a batch with status '{record.status}'."
                raise ApiError(409, message, retry=False) from None
            # The status may change between reading and writing; then look again.
            if changes is None or await self._batches.change(batch_id, changes, expected=record.status):
                record = record if changes is None else await self.record(batch_id)
                # Also where nothing was to change: the call that did may have been cut off before it told anyone.
                self._work.changed(record)
                return record

    async def record(self, batch_id: str) -> BatchRecord:
        """As it is stored. Raises ApiError 404."""
        record = await self._batches.get(batch_id)
        if record is None:
            raise not_found(f"No batch found with id '{clip(batch_id)}'.")
        return record

    def _present(self, record: BatchRecord) -> Batch:
        progress = None if lifecycle.is_terminal(record.status) else self._work.progress(record)
        return present(record, progress)


def _window(window: str) -> int:
    seconds = lifecycle.window_seconds(window)
    if seconds is None:
        raise invalid_value("completion_window", window, "'24h', or any number of minutes, hours or days up to '366d'")
    return seconds


def _defaults(given: dict[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    if _depth(given) > _MAX_DEFAULTS_DEPTH:
        message = f"Invalid 'defaults': it is nested more than {_MAX_DEFAULTS_DEPTH} levels deep."
        raise ApiError(400, message, param="defaults", code="invalid_value")
    try:
        size = len(encode(given))
    except OverflowError:
        message = "Invalid 'defaults': a number in it is too large."
        raise ApiError(400, message, param="defaults", code="invalid_value") from None
    if size > MAX_DEFAULTS_BYTES:
        message = f"Invalid 'defaults': it is {size:,} bytes long, the maximum is {MAX_DEFAULTS_BYTES:,}."
        raise ApiError(400, message, param="defaults", code="object_above_max_size")
    return given


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _metadata(given: dict[str, msgspec.Raw] | None) -> dict[str, str] | None:
    """Metadata as it came, or the 400 that says which pair is wrong."""
    if given is None:
        return None
    if len(given) > _MAX_METADATA:
        message = f"Invalid 'metadata': too many properties. Expected at most {_MAX_METADATA}, got {len(given)}."
        raise ApiError(400, message, param="metadata", code="object_above_max_properties")
    metadata = {}
    for key, raw in given.items():
        param = f"metadata.{clip(key)}"
        if bytes(raw)[:1] != b'"':
            raise wrong_type(param, "a string", type_of(raw))
        value = decode(_string_decoder, raw)
        if len(key) > _MAX_KEY:
            raise string_too_long("metadata", "a key", len(key), _MAX_KEY)
        if len(value) > _MAX_VALUE:
            raise string_too_long(param, "the value", len(value), _MAX_VALUE)
        metadata[key] = value
    return metadata
