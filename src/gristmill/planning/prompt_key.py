"""One key a row, equal exactly where an engine would be asked the same. Pure, and needs no engine.

It begins with the prompt, in the order of its tokens: rows that share the beginning of their prompt share the beginning
of their key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from gristmill.wire.common import INERT_PARAMETERS
from gristmill.wire.line_body import Fields, with_defaults
from gristmill.wire.paths import EMBEDDINGS, MODERATIONS, RERANK, SCORE

#: Between prompt and settings; after each part of a message; and before what is JSON instead of text. JSON escapes
#: control characters, and texts that hold one of these are escaped: so they stand nowhere else.
_BORDER, _PART, _JSON = b"\0", b"\x1e", b"\x1fj"
_ESCAPED = {"\x1f": "\x1fu", "\x1e": "\x1fe", "\0": "\x1fz"}
_REPEATABLE, _RANDOM = b"r", b"?"
#: Bytes.
_HASHED = 16
#: What chat templates put before the messages.
_BEFORE_MESSAGES = ("tools", "functions", "reasoning_effort")
_BEFORE_INPUT = ("tools", "reasoning")
_ABSENT = (b"", b"null")
#: As they stand in keys; other roles may be any text.
_ROLES = {"system": b"system", "user": b"user", "assistant": b"assistant", "tool": b"tool"}
#: How many first messages are remembered, how long in bytes, and of which samples of them one is looked up by.
_MOST_LEADING, _LONGEST_LEADING, _SAMPLE = 64, 256 * 1024, 64


class RowKey(NamedTuple):
    """``key`` orders rows; ``output_limit`` is how many tokens the answer may have, 0 where the row does not say."""

    key: bytes
    output_limit: int


class _Message(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    role: str
    name: str | None = None
    content: Any = None
    tool_calls: Any = None
    tool_call_id: str | None = None
    function_call: Any = None


class _Limits(msgspec.Struct):
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None


_raw_messages_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_message_decoder = msgspec.json.Decoder(_Message)
_any_message_decoder = msgspec.json.Decoder(dict[str, Any])
_limits_decoder = msgspec.json.Decoder(_Limits)
_encoder = msgspec.json.Encoder(order="sorted")
_message_encoder = msgspec.json.Encoder()


def row_key(endpoint: str, given: Fields, defaults: Fields) -> RowKey:
    """``given`` are the fields of a body that has been checked; ``defaults`` those of bodies that do not have them."""
    fields = {
        name: value
        for name, value in with_defaults(given, defaults).items()
        if name not in INERT_PARAMETERS and bytes(value) not in _ABSENT
    }
    prompt = _PROMPTS[endpoint](fields)
    settings = _message_encoder.encode({name: fields[name] for name in sorted(fields)})
    limits = _limits(settings)
    repeatable = endpoint in _WITHOUT_CHANCE or limits.temperature == 0 or limits.seed is not None
    key = b"".join((prompt, _BORDER, _REPEATABLE if repeatable else _RANDOM, settings))
    limit = limits.max_completion_tokens or limits.max_tokens or limits.max_output_tokens
    return RowKey(key, max(limit or 0, 0))


def unreadable_key(line: bytes) -> RowKey:
    """Of a line that cannot be taken apart (half a surrogate pair): it shares with none, and fails when it runs."""
    return RowKey(line.replace(_BORDER, b"") + _BORDER + _RANDOM, 0)


def prompt_length(key: bytes) -> int:
    """How much of the key is prompt."""
    return key.rindex(_BORDER)


def is_repeatable(key: bytes, prompt: int) -> bool:
    """Whether asking again would give the same answer: temperature 0, a seed, or label scores."""
    return key[prompt + 1 : prompt + 2] == _REPEATABLE


def _limits(settings: bytes) -> _Limits:
    try:
        return _limits_decoder.decode(settings)
    except msgspec.ValidationError:
        # A value of the wrong type is the row's own failure, when it runs.
        return _Limits()


def _chat(fields: Fields) -> bytes:
    before = _before(fields, _BEFORE_MESSAGES)
    return b"".join((*before, *_messages(fields.pop("messages", msgspec.Raw(b"[]")))))


def _before(fields: Fields, names: Iterable[str]) -> list[bytes]:
    return [_JSON + _encode({name: _decoded(fields.pop(name))}) + _PART for name in names if name in fields]


def _completion(fields: Fields) -> bytes:
    return _encode(_decoded(fields.pop("prompt", msgspec.Raw(b'""'))))


def _response(fields: Fields) -> bytes:
    """As the chat that it is answered by: instructions are its first message, and items are messages."""
    before = _before(fields, _BEFORE_INPUT)
    if "instructions" in fields:
        before.append(_said("system", b"", _decoded(fields.pop("instructions"))))
    given = fields.pop("input", msgspec.Raw(b"[]"))
    items = _messages(given) if bytes(given)[:1] == b"[" else [_said("user", b"", _decoded(given))]
    return b"".join((*before, *items))


def _score(fields: Fields) -> bytes:
    if "messages" in fields:
        return _chat(fields)
    parts = [_encode(_decoded(fields.pop(name))) for name in ("query", "items") if name in fields]
    if bytes(fields.get("item_first", b"")) == b"true":
        parts.reverse()
    return b"".join(parts)


def _anthropic(fields: Fields) -> bytes:
    tools = [_encode({"tools": _decoded(fields.pop("tools"))})] if "tools" in fields else []
    system = [_encode(_decoded(fields.pop("system")))] if "system" in fields else []
    return b"".join((*tools, *system, *_messages(fields.pop("messages", msgspec.Raw(b"[]")))))


def _apart(fields: Fields) -> bytes:
    """What is computed by itself and shares nothing. So that no two keys begin alike, a hash stands for the beginning;
    the rest makes the key as long as the prompt."""
    prompt = _encode({name: _decoded(fields.pop(name)) for name in ("query", "documents", "input") if name in fields})
    return hashlib.blake2b(prompt, digest_size=_HASHED).digest() + prompt[_HASHED:]


_PROMPTS = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/messages": _anthropic,
    SCORE: _score,
    EMBEDDINGS: _apart,
    RERANK: _apart,
    MODERATIONS: _apart,
}
#: No token of an answer is drawn.
_WITHOUT_CHANCE = frozenset({SCORE, EMBEDDINGS, RERANK, MODERATIONS})


def _messages(value: msgspec.Raw) -> list[bytes]:
    try:
        messages = _raw_messages_decoder.decode(value)
        first = [_leading.part(bytes(message)) for message in messages[:1]]
        return first + [_message(bytes(message)) for message in messages[1:]]
    except msgspec.ValidationError:
        return [_encode(_decoded(value))]


class _LeadingMessages:
    """First messages of earlier rows: the next row's is mostly one of them, and long."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes, bytes], tuple[bytes, bytes]] = {}

    def part(self, raw: bytes) -> bytes:
        if len(raw) > _LONGEST_LEADING:
            return _message(raw)
        # Hashing all of a message would take as long as decoding it; comparing does not.
        middle = len(raw) // 2
        place = len(raw), raw[middle : middle + _SAMPLE], raw[-_SAMPLE:]
        known, part = self._known.get(place, (b"", b""))
        if raw != known:
            part = _message(raw)
            if len(self._known) >= _MOST_LEADING:
                self._known.clear()
            self._known[place] = (raw, part)
        return part


_leading = _LeadingMessages()


def _message(raw: bytes) -> bytes:
    try:
        message = _message_decoder.decode(raw)
        role, content = message.role, message.content
        message.content = None
        others = _message_encoder.encode(message) if message != _Message(role) else b""
    except msgspec.ValidationError:
        # With fields that only some servers know, such as reasoning_content.
        fields = _any_message_decoder.decode(raw)
        role, content = fields.pop("role", None), fields.pop("content", None)
        if not isinstance(role, str):
            raise
        others = _encode(fields)
    return _said(role, others, content)


def _said(role: str, others: bytes, content: Any) -> bytes:
    # A template writes the role before the content.
    return b"".join((_ROLES.get(role) or _content(role), _PART, others, _PART, _content(_text_of(content)), _PART))


def _content(content: Any) -> bytes:
    if not isinstance(content, str):
        return _JSON + _encode(content)
    text: str = content
    if any(mark in text for mark in _ESCAPED):
        for mark, escaped in _ESCAPED.items():
            text = text.replace(mark, escaped)
    return text.encode()


def _text_of(content: Any) -> Any:
    """A single part that is text is that text to every model. Of several, servers make one in ways of their own."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part: dict[str, Any] = content[0]
        if part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str):
            return part["text"]
    return content


def _decoded(value: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        # A number beyond Python's: as it stands.
        return msgspec.Raw(value)


def _encode(value: Any) -> bytes:
    return _encoder.encode(value)
