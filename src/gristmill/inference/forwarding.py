"""Requests passed on as they came, for engines that can: no more of a body is read here than what is needed.

What else is in it, and whether it makes sense, is the server's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from gristmill.engines.protocol import ForwardedAnswer, ForwardRequest
from gristmill.inference.answer import Answer, cannot_store
from gristmill.wire.errors import ApiError
from gristmill.wire.json import decode

Forward = Callable[[ForwardRequest], Coroutine[Any, Any, ForwardedAnswer]]

_ABSENT = msgspec.Raw()


class _ChatHead(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    store: bool | None = None
    # Chat templates put them before the messages.
    tools: msgspec.Raw = _ABSENT


class _ResponseHead(msgspec.Struct):
    model: str
    input: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    stream: bool | None = None


class _TextHead(msgspec.Struct):
    model: str
    prompt: msgspec.Raw = _ABSENT
    stream: bool | None = None


class _PlainHead(msgspec.Struct):
    model: str


_chat_decoder = msgspec.json.Decoder(_ChatHead)
_response_decoder = msgspec.json.Decoder(_ResponseHead)
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(_TextHead)
_plain_decoder = msgspec.json.Decoder(_PlainHead)


def chat_request(path: str, body: bytes) -> ForwardRequest:
    """Raises the 400 for what is no JSON object with a model and a list of messages, and for ``store``, which is this
    server's own affair."""
    head = decode(_chat_decoder, _checked(body))
    if head.store:
        raise cannot_store()
    before = () if head.tools == _ABSENT else (head.tools,)
    return ForwardRequest(path, head.model, body, (*before, *head.messages), head.stream is True)


def response_request(path: str, body: bytes) -> ForwardRequest:
    """What is kept of a response, and whether there are earlier ones, is the server's to say as well."""
    head = decode(_response_decoder, _checked(body))
    items = _items_decoder.decode(head.input) if bytes(head.input)[:1] == b"[" else [head.input]
    before = [part for part in (head.tools, head.instructions) if part != _ABSENT]
    return ForwardRequest(path, head.model, body, (*before, *items), head.stream is True)


def text_request(path: str, body: bytes) -> ForwardRequest:
    head = decode(_text_decoder, _checked(body))
    return ForwardRequest(path, head.model, body, (head.prompt,), head.stream is True)


def plain_request(path: str, body: bytes) -> ForwardRequest:
    """Of an endpoint that computes each request by itself: embeddings, scores, ranks."""
    return ForwardRequest(path, decode(_plain_decoder, _checked(body)).model, body)


async def answer(request: ForwardRequest, forward: Forward) -> Answer:
    found = await forward(request)
    return Answer(msgspec.Raw(found.body), found.prompt_tokens or 0, found.cached_tokens, found.completion_tokens or 0)


def _checked(body: bytes) -> bytes:
    """The decoder skips what it does not look into, and does not see its encoding."""
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, f"We could not parse the JSON body of your request: {error}.") from None
    return body
