"""The prompt of any request in pieces, for those who look for what requests share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from gristmill.engines.protocol import EmbeddingRequest, ForwardRequest, LabelRequest, Request
from gristmill.wire.chat import ChatCompletionRequest, ContentPart, Message

#: Bytes, some 500 tokens: a shorter prefix is computed sooner than it is waited for.
_WORTH_WAITING = 2048


def prompt_parts(request: Request | ForwardRequest | LabelRequest | EmbeddingRequest) -> list[bytes]:
    """The prompt in pieces, in the order of its tokens: messages, or one text. Rows that share the beginning of their
    prompt share the first of them. Inputs to embed share nothing: of them there are none."""
    if isinstance(request, EmbeddingRequest):
        return []
    if isinstance(request, ForwardRequest):
        return [bytes(part) for part in request.prompt]
    prompt = request.messages if isinstance(request, ChatCompletionRequest) else request.prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], Message):
        texts = [_message_text(message) for message in prompt]
    else:
        texts = [prompt if isinstance(prompt, str) else " ".join(map(str, prompt))]
    parts = [text.encode("utf-8", "replace") for text in texts]
    if isinstance(request, ChatCompletionRequest) and (request.tools or request.functions):
        # Most chat templates put them before the messages.
        parts.insert(0, _encoded(request.tools or request.functions))
    return parts


def shared_prefix(model: str, parts: Sequence[bytes]) -> int | None:
    """A hash of what the row probably shares with others; None where that is too short to wait for.

    All parts of the prompt but the last, which is the usual place of a row's own part. Where they are short, as in a
    prompt that is one text, its beginning: rows that differ in there share too little to matter.
    """
    before = parts[:-1]
    if sum(map(len, before)) >= _WORTH_WAITING:
        return hash((model, *before))
    whole = b"\0".join(parts)
    return hash((model, whole[:_WORTH_WAITING])) if len(whole) > _WORTH_WAITING else None


def _message_text(message: Message) -> str:
    calls = message.tool_calls or message.function_call
    called = _encoded(calls).decode() if calls else ""
    return f"{message.role}:{_content(message)}{called}"


def _content(message: Message) -> str:
    """Its text; in the place of an image, or of whatever else is no text, what tells it from others. (Its data would
    count as a million tokens.)"""
    if not isinstance(message.content, list):
        return message.text()
    return "".join(part.text or "" if part.type == "text" else _digest(part) for part in message.content)


def _digest(part: ContentPart) -> str:
    return hashlib.blake2b(_encoded(part), digest_size=16).hexdigest()


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (RecursionError, UnicodeEncodeError):
        # Whatever is wrong with it is the engine's to say; it shares with none that differs.
        return repr(value).encode("utf-8", "replace")
