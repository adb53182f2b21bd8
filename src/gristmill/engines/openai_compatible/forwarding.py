"""A server's answer that is passed on as it came: what is read of it, and whether it is whole. Pure."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, interrupted
from gristmill.engines.openai_compatible.failures import stream_failure
from gristmill.engines.protocol import ForwardedAnswer
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS

#: Of one answer, or one event of a stream.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: With these reasons, a server says that it gave up on the answer.
_GIVEN_UP = frozenset({"abort", "error"})
_GENERATED = frozenset({CHAT, COMPLETIONS})
#: Events that end the stream of a response. The last two say why it failed, in that API's own way.
_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_LONGEST_END = 4


class _ChoiceEnd(msgspec.Struct, frozen=True):
    index: int = 0
    finish_reason: str | None = None


class _CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _ReportedUsage(msgspec.Struct, frozen=True):
    """``input`` and ``output`` are what responses call them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _CachedTokens | None = None


class _ResponseEnd(msgspec.Struct, frozen=True):
    usage: _ReportedUsage | None = None


class _Vector(msgspec.Struct, frozen=True):
    embedding: msgspec.Raw = msgspec.Raw()


class _Vectors(msgspec.Struct, frozen=True):
    data: list[_Vector]


class _AnswerHead(msgspec.Struct, frozen=True):
    choices: list[_ChoiceEnd] | None = None
    usage: _ReportedUsage | None = None
    error: Any = None
    type: Any = None
    response: msgspec.Raw = msgspec.Raw()


_NO_USAGE = _ReportedUsage()

_decoder = msgspec.json.Decoder(_AnswerHead)
_response_decoder = msgspec.json.Decoder(_ResponseEnd)
_vectors_decoder = msgspec.json.Decoder(_Vectors)


def read_answer(path: str, body: bytes) -> ForwardedAnswer:
    """A whole answer with status 200. Raises EngineError for what is none."""
    head = _head(body)
    if path in _GENERATED:
        if not head.choices:
            raise interrupted("The server's answer has no choices.")
        for choice in head.choices:
            if choice.finish_reason is None:
                raise interrupted("The server ended the answer in the middle (finish_reason: None).")
    elif path == EMBEDDINGS:
        _check_vectors(body)
    return _forwarded(body, head.usage)


def _check_vectors(body: bytes) -> None:
    """llama.cpp writes null for what is no number, as when a model overflows."""
    try:
        held = [bytes(each.embedding) for each in _vectors_decoder.decode(body).data]
    except msgspec.ValidationError as error:
        raise interrupted(f"The server's answer holds no vectors: {error}.") from None
    if not held or any(vector in (b"", b"[]", b'""') or b"null" in vector for vector in held):
        raise interrupted("A vector in the server's answer is missing, or holds what is no number.")


class ForwardedEvents:
    """``read`` every event of one stream; ``finish`` at its end."""

    def __init__(self) -> None:
        self._usage: _ReportedUsage | None = None
        self._ended = False
        self._begun: set[int] = set()
        self._finished: set[int] = set()

    def read(self, event: bytes) -> None:
        """Raises EngineError for what is not to be passed on: an error, and what cannot be read."""
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if not data:
            # A comment, by which servers keep connections open.
            return
        if data == b"[DONE]":
            self._ended = True
            return
        head = _head(data)
        self._usage = head.usage or self._usage
        if isinstance(head.type, str) and head.type in _RESPONSE_ENDS:
            self._ended = True
            self._usage = _usage_of_response(head.response) or self._usage
        for choice in head.choices or ():
            self._begun.add(choice.index)
            if choice.finish_reason is not None:
                self._finished.add(choice.index)

    def finish(self) -> ForwardedAnswer:
        # Some servers send no [DONE].
        if not self._ended and (not self._begun or self._begun > self._finished):
            raise interrupted("The server ended the answer in the middle.")
        return _forwarded(b"", self._usage)


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events of a stream as they came, each with the blank line that ends it, however it is cut into chunks."""
    rest, searched = b"", 0
    async for chunk in chunks:
        rest += chunk
        start = 0
        while (end := _EVENT_END.search(rest, max(searched, start))) is not None:
            yield rest[start : end.end()]
            start = end.end()
        rest = rest[start:]
        searched = max(0, len(rest) - _LONGEST_END)
        if len(rest) > MAX_ANSWER_BYTES:
            raise answer_too_large()
    if rest.strip():
        yield rest


def answer_too_large() -> EngineError:
    message = f"The server's answer is larger than the maximum of {MAX_ANSWER_BYTES:,} bytes."
    return EngineError(ErrorKind.INVALID_REQUEST, message, status=502, code="answer_too_large")


def _head(data: bytes) -> _AnswerHead:
    try:
        head = _decoder.decode(data)
        if not data.isascii():
            # The decoder skips what it does not look into, and does not see its encoding.
            data.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise interrupted(f"The server's answer cannot be read: {error}.") from None
    if head.error is not None:
        raise stream_failure(head.error)
    for choice in head.choices or ():
        if choice.finish_reason in _GIVEN_UP:
            raise interrupted(f"The server gave the answer up (finish_reason: '{choice.finish_reason}').")
    return head


def _usage_of_response(response: msgspec.Raw) -> _ReportedUsage | None:
    try:
        return _response_decoder.decode(response).usage
    except (msgspec.DecodeError, RecursionError):
        return None


def _forwarded(body: bytes, usage: _ReportedUsage | None) -> ForwardedAnswer:
    usage = usage or _NO_USAGE
    details = usage.prompt_tokens_details or usage.input_tokens_details
    cached = None if details is None else details.cached_tokens
    prompt = usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    completion = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    return ForwardedAnswer(body, prompt, completion, cached)
