"""The rows to measure with: the chat completions of an ordinary batch file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest, ContentPart, Message

_ENDPOINT = "/v1/chat/completions"


class _RowLine(msgspec.Struct):
    url: str
    body: ChatCompletionRequest


def read_rows(path: Path, count: int, model: str | None) -> list[ChatCompletionRequest]:
    """The first ``count`` requests, at temperature 0 and, if given, for ``model``. Raises UserError naming the line."""
    decoder = msgspec.json.Decoder(_RowLine)
    rows: list[ChatCompletionRequest] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if len(rows) == count:
                break
            try:
                read = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is no batch line: {error}.") from None
            if read.url != _ENDPOINT:
                raise UserError(f"{path}, line {number} is for {read.url}: gristmill bench takes {_ENDPOINT} only.")
            # At any other temperature, two answers to the same prompt would differ by themselves.
            body = msgspec.structs.replace(read.body, temperature=0.0, stream=None, stream_options=None, n=None)
            rows.append(body if model is None else msgspec.structs.replace(body, model=model))
    if not rows:
        raise UserError(f"{path} has no rows.")
    return rows


def marked(request: ChatCompletionRequest, mark: str) -> ChatCompletionRequest:
    """The request with ``mark`` as the very first line of its prompt, so that it shares no prefix with other marks."""
    first, *others = request.messages
    content: str | list[ContentPart]
    if isinstance(first.content, list):
        content = [ContentPart("text", text=f"{mark}\n"), *first.content]
    else:
        content = f"{mark}\n{first.content or ''}"
    return with_messages(request, [msgspec.structs.replace(first, content=content), *others])


def with_messages(request: ChatCompletionRequest, messages: list[Message]) -> ChatCompletionRequest:
    return msgspec.structs.replace(request, messages=messages)
