"""The lines of output and error files, and the ids in them: pure functions of the batch and the outcome."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from gristmill.inference.answer import Answer
from gristmill.storage.row_records import Result
from gristmill.wire.batch import LineError, LineResponse, OutputLine
from gristmill.wire.errors import ApiError
from gristmill.wire.json import encode, encode_ascii, one_line

EXPIRED = LineError("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED = LineError("batch_cancelled", "The batch was cancelled before this request executed.")
INPUT_LOST = LineError("input_file_lost", "The batch's input file was lost before this request executed.")
TIMED_OUT = LineError("request_timeout", "The underlying call to the model timed out.")


def errors_beside(output: Path) -> Path:
    """Where the failed rows go of a batch whose answers go to ``output``."""
    return output.with_name(f"{output.stem}.errors{output.suffix}")


def stable_id(prefix: str, *parts: object) -> str:
    """The same id for the same parts, so that writing a file again writes the same file."""
    text = "\0".join(map(str, parts)).encode()
    return prefix + hashlib.blake2b(text, digest_size=16).hexdigest()


def success(batch_id: str, line: int, custom_id: str, answer: Answer) -> Result:
    return Result(
        line,
        True,
        _line(batch_id, line, custom_id, LineResponse(200, "", msgspec.Raw(one_line(encode(answer.body)))), None),
        answer.prompt_tokens,
        answer.cached_tokens,
        answer.completion_tokens,
        answer.reused,
    )


def failure(batch_id: str, line: int, custom_id: str, error: ApiError) -> Result:
    """A failure of the row itself. A time-out has no HTTP answer; everything else keeps the one it got."""
    if error.body.code == TIMED_OUT.code:
        return Result(line, False, _line(batch_id, line, custom_id, None, TIMED_OUT))
    response = LineResponse(error.status, "", msgspec.Raw(encode(error.response())))
    return Result(line, False, _line(batch_id, line, custom_id, response, None))


def never_ran(batch_id: str, line: int, custom_id: str, reason: LineError) -> bytes:
    return _line(batch_id, line, custom_id, None, reason)


def shortest_line_bytes() -> int:
    """Of a row that ran, with its newline: no answer or failure is shorter."""
    answered = LineResponse(200, "", msgspec.Raw(b"{}"))
    lines = (_line("", 1, "", answered, None), _line("", 1, "", None, TIMED_OUT))
    return min(map(len, lines)) + 1


def _line(batch_id: str, line: int, custom_id: str, response: LineResponse | None, error: LineError | None) -> bytes:
    identity = stable_id("", batch_id, line)
    if response is not None:
        response.request_id = "req_" + identity
    return encode_ascii(OutputLine("batch_req_" + identity, custom_id, response, error))
