"""The results of a message batch, made of its output and error files as they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from gristmill.batches import output_lines
from gristmill.batches.lines import LineSplitter
from gristmill.inference.messages_errors import error_body
from gristmill.storage.protocol import Storage
from gristmill.storage.records import BatchRecord, file_blob
from gristmill.wire.batch import OutputLine
from gristmill.wire.errors import ErrorResponse, not_found
from gristmill.wire.json import encode
from gristmill.wire.message_batches import (
    CanceledResult,
    ErroredResult,
    ExpiredResult,
    MessageBatchLine,
    SucceededResult,
)
from gristmill.wire.messages import MessageErrorResponse

#: Lines sent together: long enough for a network, short enough for others to have their turn.
_LINES_AT_ONCE = 100
_NEVER_RAN: dict[str, CanceledResult | ExpiredResult] = {
    output_lines.CANCELLED.code: CanceledResult(),
    output_lines.EXPIRED.code: ExpiredResult(),
}

_line_decoder = msgspec.json.Decoder(OutputLine)
_error_decoder = msgspec.json.Decoder(ErrorResponse)


async def files_of(storage: Storage, batch: BatchRecord, batch_id: str) -> list[str]:
    """Ids of the files that hold the results. Raises ApiError 404 where there are none, or not any more."""
    wanted = [each for each in (batch.output_file_id, batch.error_file_id) if each is not None]
    found = [await storage.metadata.files.get(file_id) for file_id in wanted]
    if not wanted or None in found:
        raise not_found(f"Message Batch {batch_id} has no available results{_why(batch, bool(wanted))}.")
    return wanted


def _why(batch: BatchRecord, had_files: bool) -> str:
    if had_files:
        return ": they have expired, or a file of them was deleted"
    if batch.errors:
        error = batch.errors[0]
        return f": it was rejected, because of {f'line {error.line}' if error.line else 'its input'}: {error.message}"
    return " yet: it has not ended"


async def results(storage: Storage, files: list[str]) -> AsyncIterator[bytes]:
    """JSON lines, a few together. Raises BlobLost."""
    for file_id in files:
        splitter = LineSplitter(2**62)
        async for chunk in storage.blobs.stream(file_blob(file_id)):
            lines = splitter.feed(chunk)
            for start in range(0, len(lines), _LINES_AT_ONCE):
                yield b"".join(result(line.data or b"") for line in lines[start : start + _LINES_AT_ONCE])
                await asyncio.sleep(0)


def result(line: bytes) -> bytes:
    """A line of an output or error file as a line of results."""
    read = _line_decoder.decode(line)
    return encode(MessageBatchLine(read.custom_id, _result(read))) + b"\n"


def _result(line: OutputLine) -> SucceededResult | ErroredResult | CanceledResult | ExpiredResult:
    if line.response is not None and line.response.status_code == 200:
        return SucceededResult(line.response.body)
    if line.response is not None:
        error = _error_decoder.decode(line.response.body).error
        body = error_body(line.response.status_code, error.message, error.param)
        return ErroredResult(MessageErrorResponse(body, line.response.request_id))
    assert line.error is not None
    if line.error.code in _NEVER_RAN:
        return _NEVER_RAN[line.error.code]
    timed_out = line.error.code == output_lines.TIMED_OUT.code
    return ErroredResult(MessageErrorResponse(error_body(504 if timed_out else 500, line.error.message)))
