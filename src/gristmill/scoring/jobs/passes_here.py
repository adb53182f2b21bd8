"""The passes of a scoring as batches of this server, each in its owner's scope."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from gristmill.access.refusals import over_limit
from gristmill.batches.incoming import expiry, new_file_id
from gristmill.batches.job_folder import write_whole
from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.scoped_host import ScopedHost
from gristmill.scoring.computation import Computation, note_computation
from gristmill.scoring.jobs.messages import PassEnded, RunPass
from gristmill.storage.errors import OverLimit
from gristmill.storage.private import private_file
from gristmill.storage.records import FileRecord, file_blob
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.errors import ApiError
from gristmill.wire.json import encode

_NOTE, _NAME = "batch.json", "gristmill_pass"
_WINDOW = "30d"
_LOOK_SECONDS = 0.5
_CHUNK = 4 * 1024 * 1024


class _Note(msgspec.Struct):
    batch_id: str
    identity: dict[str, Any]


async def begin_pass(mine: ScopedHost, asked: RunPass, title: str, computation: Computation) -> str:
    """The id of the pass's batch, which is created where there is none yet. ``computation``: what answers it, from now
    on. Raises UserError."""
    folder = Path(asked.folder)
    note = folder / _NOTE
    if note.exists():
        begun = msgspec.json.decode(note.read_bytes(), type=_Note)
        if begun.identity != asked.identity:
            raise UserError("The table or the rubric changed since this was started: start another scoring.")
        if not is_terminal((await _batch(mine, begun.batch_id)).status):
            note_computation(folder, computation)
        return begun.batch_id
    note_computation(folder, computation)
    try:
        batch_id = await _found(mine, folder) or await _created(mine, asked, title)
    except ApiError as error:
        raise UserError(f"The server does not take the rows: {error.body.message}") from None
    except OverLimit as over:
        raise UserError(f"The server does not take the rows: {over_limit(over).body.message}") from None
    write_whole(note, msgspec.json.encode(_Note(batch_id, asked.identity)))
    return batch_id


async def ended(mine: ScopedHost, batch_id: str) -> Batch:
    """The batch as it is when it has ended. Raises UserError where it is not there any more."""
    while True:
        batch = await _batch(mine, batch_id)
        if is_terminal(batch.status):
            return batch
        await asyncio.sleep(_LOOK_SECONDS)


async def _batch(mine: ScopedHost, batch_id: str) -> Batch:
    """Raises UserError where it is not there any more."""
    try:
        return await mine.batches.get(batch_id)
    except ApiError:
        raise UserError(f"The batch {batch_id} of this scoring is not there any more.") from None


async def end_pass(mine: ScopedHost, asked: RunPass, batch: Batch) -> PassEnded:
    """Of one whose batch has ended. Raises UserError."""
    folder = Path(asked.folder)
    if batch.status != "completed":
        errors = batch.errors.data if batch.errors else []
        # Who goes on asks again.
        (folder / _NOTE).unlink(missing_ok=True)
        (folder / _NAME).unlink(missing_ok=True)
        said = "; ".join(each.message for each in errors[:3])
        raise UserError(f"The batch {batch.id} is {batch.status}. {said}".strip())
    files = []
    for file_id, name in ((batch.output_file_id, "output.jsonl"), (batch.error_file_id, "errors.jsonl")):
        if file_id is not None:
            await _copy(mine, file_id, folder / name)
            files.append(str(folder / name))
    return PassEnded(batch, files)


async def _found(mine: ScopedHost, folder: Path) -> str | None:
    """A kill may have come between creating the batch and noting it: it carries a name of ours."""
    name = folder / _NAME
    if not name.exists():
        write_whole(name, secrets.token_hex(16).encode())
        return None
    known = name.read_text()
    listed = await mine.batches.page(None, 100)
    return next((each.id for each in listed.data if (each.metadata or {}).get(_NAME) == known), None)


async def _created(mine: ScopedHost, asked: RunPass, title: str) -> str:
    """Raises ApiError."""
    file_id, path = new_file_id(), Path(asked.input_file)
    async with mine.storage.new_blobs.begin(file_blob(file_id)) as write:
        size = await write(_chunks(path))
        now = int(time.time())
        record = FileRecord(file_id, size, now, f"{Path(asked.folder).name}.jsonl", "batch", expiry("batch", now, None))
        await mine.storage.metadata.files.add(record)
    metadata = {_NAME: (Path(asked.folder) / _NAME).read_text(), "name": title}
    given = {name: msgspec.Raw(encode(value)) for name, value in metadata.items()}
    request = CreateBatchRequest(file_id, asked.endpoint, _WINDOW, metadata=given, defaults=asked.shared)
    try:
        return (await mine.batches.create(request)).id
    except BaseException:
        await mine.storage.metadata.files.delete(file_id)
        raise


async def _copy(mine: ScopedHost, file_id: str, target: Path) -> None:
    private_file(target)
    with target.open("wb") as file:
        async for chunk in mine.storage.blobs.stream(file_blob(file_id)):
            await asyncio.to_thread(file.write, chunk)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
