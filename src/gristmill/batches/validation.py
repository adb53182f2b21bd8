"""Validating a batch's input: index every line, collect every error, and have it planned."""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.batches import line_check
from gristmill.batches.input_process import (
    Indexed,
    InputRead,
    InputToRead,
    PlanFiles,
    ReaderDied,
    planning_folder,
    read_input,
)
from gristmill.batches.input_reader import Limits
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, Lease, file_blob
from gristmill.telemetry.log import get_logger
from gristmill.wire.batch import BatchError, BatchPlan
from gristmill.wire.prefix_tree import PrefixBox

log = get_logger(__name__)

#: Rows whose order or whose original is stored in one transaction.
_GROUP = 4_000


class Validation(NamedTuple):
    """``errors`` in line order; with any, nothing runs. ``plan`` is None where none was wanted."""

    total: int
    model: str | None
    errors: list[BatchError]
    plan: BatchPlan | None = None
    tree: list[PrefixBox] | None = None


async def validate(
    storage: Storage,
    batch: BatchRecord,
    lease: Lease,
    models: dict[str, str],
    limits: Limits,
    scratch: Path | None,
    pinned: dict[str, Any],
) -> Validation:
    """Index the batch's rows, find its errors, and store the order to run in. Repeatable: what an earlier try stored is
    dropped first. ``models`` are the names that lines may ask for, each with the model's own. ``scratch`` is a folder
    for planning; None: nothing is planned; ``pinned`` are fields that the engine sets. Raises LeaseLost
    where the batch is another's by now."""
    refusal, size = await _look_at_file(storage, batch)
    if refusal is not None:
        return Validation(0, None, [refusal])
    source = InputToRead(
        storage.blobs.location, file_blob(batch.input_file_id), size,
        batch.endpoint, batch.defaults, pinned, models, limits, None,
    )  # fmt: skip
    with contextlib.ExitStack() as cleanup:
        failure = None
        if scratch is not None:
            try:
                source.folder = cleanup.enter_context(planning_folder(scratch))
            except OSError as error:
                failure = f"There is no folder for planning: {error}"
        try:
            found = await _index(storage, batch, lease, source)
        except ReaderDied as died:
            # Once more without planning, and in this process: whatever killed it, memory most likely, is not repeated.
            failure = str(died)
            log.error("the process that read the input ended; it is read again", batch=batch.id, content=failure)
            source.folder = None
            found = await _index(storage, batch, lease, source)
        if found.errors:
            return Validation(found.total, found.model, found.errors)
        if scratch is None:
            return Validation(found.total, found.model, [])
        plan = await _store_plan(storage, batch, lease, found.plan, failure or found.plan_failure)
    return Validation(found.total, found.model, [], plan, found.plan.tree if found.plan is not None else None)


async def _look_at_file(storage: Storage, batch: BatchRecord) -> tuple[BatchError | None, int]:
    """Why the file cannot be read at all, if so; and its size in bytes."""
    file = await storage.metadata.files.get_kept(batch.input_file_id, batch.key_id)
    # The bytes of an expired file are there until housekeeping comes by.
    if file is None or (file.expires_at is not None and file.expires_at <= batch.created_at):
        message = (
            f"Cannot find file {batch.input_file_id}, or this server does not have access to it. "
            "Upload it with purpose 'batch' and use the id of the answer."
        )
        return BatchError("invalid_request", message, param="file_id"), 0
    if file.purpose != "batch":
        message = f"The file {file.id} has the purpose '{file.purpose}'. Upload it again with purpose 'batch'."
        return BatchError("invalid_request", message, param="file_id"), 0
    return None, file.bytes


async def _index(storage: Storage, batch: BatchRecord, lease: Lease, source: InputToRead) -> InputRead:
    rows = storage.metadata.rows
    await rows.clear(lease)
    async with contextlib.aclosing(read_input(source, storage.blobs)) as frames:
        async for frame in frames:
            match frame:
                case Indexed(added):
                    for start in range(0, len(added), _GROUP):
                        await rows.add(lease, added[start : start + _GROUP])
                case InputRead():
                    await rows.update_statistics(lease)
                    await _complete_errors(storage, batch, source.limits, frame)
                    return frame
    raise AssertionError("the last frame is an InputRead")


async def _complete_errors(storage: Storage, batch: BatchRecord, limits: Limits, found: InputRead) -> None:
    """Add what only the index can tell, and say how much is not listed."""
    if 0 < found.total <= limits.max_rows:
        wanted = max(limits.max_listed_errors - len(found.errors), 0)
        duplicates = await storage.metadata.rows.duplicates(batch.seq, wanted + 1)
        found.errors += [line_check.duplicate(line, custom_id) for line, custom_id in duplicates[:wanted]]
        found.errors.sort(key=lambda error: error.line or 0)
        found.unlisted += len(duplicates[wanted:])
    if found.unlisted:
        message = f"There are more errors than are listed: at least {found.unlisted:,} more."
        found.errors.append(BatchError("invalid_request", message))


async def _store_plan(
    storage: Storage, batch: BatchRecord, lease: Lease, plan: PlanFiles | None, failure: str | None
) -> BatchPlan:
    """Nothing but ``rows.clear`` undoes it."""
    if plan is None:
        log.error("planning failed; rows run in the order of their lines", batch=batch.id, content=failure)
        return BatchPlan(failure=failure)
    place = 1
    async for lines in _numbers(plan.order):
        await storage.metadata.rows.arrange(lease, place, lines)
        place += len(lines)
    async for pairs in _numbers(plan.duplicates):
        await storage.metadata.rows.follow(lease, list(zip(pairs[::2], pairs[1::2], strict=True)))
    await storage.metadata.rows.update_statistics(lease)
    return plan.summary


async def _numbers(path: str | None) -> AsyncIterator[array[int]]:
    """The numbers in a file, an even number of them at a time."""
    if path is None:
        return
    with await asyncio.to_thread(Path(path).open, "rb") as file:
        while data := await asyncio.to_thread(file.read, _GROUP * 16):
            yield array("q", data)
