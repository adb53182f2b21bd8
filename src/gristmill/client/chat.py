"""One streamed chat completion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec

from gristmill.client.connection import NoAnswer, NotBatchApi, ServerConnection
from gristmill.printable import printable
from gristmill.user_error import UserError
from gristmill.wire.errors import ErrorBody


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    """A chunk, or the error that ends the stream."""

    choices: list[_Choice] = []
    error: ErrorBody | None = None


def stream_chat(connection: ServerConnection, body: dict[str, Any], on_text: Callable[[str], None]) -> str | None:
    """Call ``on_text`` with each piece of the answer; why it ended ("stop", "length"), as far as the server says.

    Tried again as long as nothing of the answer has come. Raises UserError.
    """
    stream = _Stream(connection, {**body, "stream": True}, on_text)
    return connection.patiently(stream.attempt)


class _Stream:
    def __init__(self, connection: ServerConnection, body: dict[str, Any], on_text: Callable[[str], None]) -> None:
        self._connection = connection
        self._body = body
        self._on_text = on_text
        self._begun = False

    def attempt(self) -> str | None:
        try:
            with self._connection.stream("/chat/completions", {}, json=self._body) as answer:
                return self._read(answer)
        except NoAnswer as error:
            if self._begun:
                raise UserError(f"The answer was cut off: {error.reason}.") from None
            raise

    def _read(self, answer: httpx.Response) -> str | None:
        finish_reason = None
        for data in _events(answer):
            if data == "[DONE]":
                return finish_reason
            try:
                event = msgspec.json.decode(data, type=_Event)
            except msgspec.DecodeError:
                raise NotBatchApi(f"{self._connection.shown} streams something else than an answer.", 200) from None
            if event.error is not None:
                raise UserError(f"The answer was cut off: {printable(event.error.message)}")
            for choice in event.choices[:1]:
                finish_reason = choice.finish_reason or finish_reason
                if choice.delta.content:
                    self._begun = True
                    self._on_text(choice.delta.content)
        if finish_reason is None:
            raise NoAnswer("The server ended the answer too early.", "the server closed the connection too early")
        return finish_reason


def _events(answer: httpx.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()
