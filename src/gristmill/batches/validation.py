"""Validating an input file: stream it once, index every line, collect every error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gristmill.batches import line_check
from gristmill.batches.lines import Line, LineSplitter
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, Row, file_blob
from gristmill.wire.batch import BatchError

#: Rows added to the index in one transaction.
_INDEX_ROWS = 4_000


class Limits(NamedTuple):
    """What an input file may hold. Ours to set: the contract's clients enforce nothing."""

    max_rows: int = 10_000_000
    max_line_bytes: int = 32 * 1024 * 1024
    max_listed_errors: int = 10_000


class Validation(NamedTuple):
    """``errors`` in line order; with any, nothing runs."""

    total: int
    model: str | None
    errors: list[BatchError]


class Stopped(Exception):
    """Validation was asked to stop; it starts again from the beginning, or not at all."""


async def validate(
    storage: Storage,
    batch: BatchRecord,
    models: tuple[str, ...],
    limits: Limits,
    stopping: Callable[[], bool],
) -> Validation:
    """Index the batch's rows and find its errors. Repeatable: what an earlier try indexed is dropped first.

    Raises Stopped soon after ``stopping()`` becomes true.
    """
    refusal = await _refuse_file(storage, batch)
    if refusal is not None:
        return Validation(0, None, [refusal])
    await storage.metadata.rows.clear(batch.seq)
    indexer = _Indexer(storage, batch, models, limits)
    splitter = LineSplitter(limits.max_line_bytes)
    async for chunk in storage.blobs.stream(file_blob(batch.input_file_id)):
        await indexer.take(splitter.feed(chunk))
        if stopping():
            raise Stopped
        if indexer.total > limits.max_rows:
            break
    await indexer.take(splitter.finish())
    return await indexer.finish()


async def _refuse_file(storage: Storage, batch: BatchRecord) -> BatchError | None:
    """Why the file cannot be read at all, if so."""
    file = await storage.metadata.files.get(batch.input_file_id)
    if file is None:
        message = (
            f"Cannot find file {batch.input_file_id}, or this server does not have access to it. "
            "Upload it with purpose 'batch' and use the id of the answer."
        )
        return BatchError("invalid_request", message, param="file_id")
    if file.purpose != "batch":
        message = f"The file {file.id} has the purpose '{file.purpose}'. Upload it again with purpose 'batch'."
        return BatchError("invalid_request", message, param="file_id")
    return None


class _Indexer:
    """Checks lines and adds the good ones to the index, while the next lines are being read."""

    def __init__(self, storage: Storage, batch: BatchRecord, models: tuple[str, ...], limits: Limits) -> None:
        self._rows = storage.metadata.rows
        self._batch = batch
        self._models = models
        self._limits = limits
        self._buffer: list[Row] = []
        self._adding: asyncio.Task[None] | None = None
        self._errors: list[BatchError] = []
        self._unlisted = 0
        self._model: str | None = None
        self.total = 0

    async def take(self, lines: list[Line]) -> None:
        for line in lines:
            self.total += 1
            self._check(line)
            if len(self._buffer) >= _INDEX_ROWS:
                await self._add()

    async def finish(self) -> Validation:
        await self._add()
        await self._wait()
        if self.total == 0:
            message = "The input file is empty. Please ensure that the batch contains at least one request."
            return Validation(0, None, [BatchError("empty_file", message)])
        if self.total > self._limits.max_rows:
            message = f"The batch input file has more than {self._limits.max_rows:,} requests, the maximum here."
            return Validation(0, None, [BatchError("maximum_requests_exceeded", message)])
        limit = self._limits.max_listed_errors
        for line, custom_id in await self._rows.duplicates(self._batch.seq, limit + 1):
            self._report(line_check.duplicate(line, custom_id))
        self._errors.sort(key=lambda error: error.line or 0)
        if self._unlisted:
            message = f"There are more errors than are listed: at least {self._unlisted:,} more."
            self._errors.append(BatchError("invalid_request", message))
        return Validation(self.total, self._model, self._errors)

    def _check(self, line: Line) -> None:
        if line.data is None:
            self._report(line_check.too_long(line.number, line.length, self._limits.max_line_bytes))
            return
        check = line_check.check_line(line.data, line.number, self._batch.endpoint, self._batch.defaults)
        for error in check.errors:
            self._report(error)
        if check.model is not None:
            self._check_model(line.number, check.model)
        if check.custom_id is not None:
            self._buffer.append(Row(line.number, check.custom_id, line.offset, line.length))

    def _check_model(self, number: int, model: str) -> None:
        if self._model is None:
            self._model = model
        if model != self._model:
            self._report(line_check.mismatched_model(number, model))
        elif model not in self._models:
            self._report(line_check.unknown_model(number, model))

    def _report(self, error: BatchError) -> None:
        if len(self._errors) < self._limits.max_listed_errors:
            self._errors.append(error)
        else:
            self._unlisted += 1

    async def _add(self) -> None:
        await self._wait()
        rows, self._buffer = self._buffer, []
        self._adding = asyncio.create_task(self._rows.add(self._batch.seq, rows))

    async def _wait(self) -> None:
        if self._adding is not None:
            await self._adding
