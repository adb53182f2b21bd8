"""One key a row, equal exactly where an engine would be asked the same. Pure, and needs no engine.

It begins with the prompt, in the order of its tokens: rows that share the beginning of their prompt share the beginning
of their key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gristmill.wire.line_body import Fields, with_defaults

#: Between prompt and settings. JSON escapes control characters, so that it stands nowhere else.
_BORDER = b"\0"
_REPEATABLE, _RANDOM = b"r", b"?"
#: What chat templates put before the messages.
_BEFORE_MESSAGES = ("tools", "functions", "reasoning_effort")
#: What changes no answer.
_IGNORED = frozenset(
    {"user", "metadata", "service_tier", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
     "prompt_cache_options", "stream", "stream_options"}
)  # fmt: skip
_ABSENT = (b"", b"null")


class RowKey(NamedTuple):
    """``key`` orders rows; ``output_limit`` is how many tokens the answer may have, 0 where the row does not say."""

    key: bytes
    output_limit: int


class _Message(msgspec.Struct, omit_defaults=True):
    """``content`` first would be wrong: a template writes the role before it."""

    role: str
    name: str | None = None
    content: Any = None
    tool_calls: Any = None
    tool_call_id: str | None = None
    function_call: Any = None


class _Limits(msgspec.Struct):
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None


_messages_decoder = msgspec.json.Decoder(list[_Message])
_limits_decoder = msgspec.json.Decoder(_Limits)
_fields_decoder = msgspec.json.Decoder(Fields)
_encoder = msgspec.json.Encoder(order="sorted")
_message_encoder = msgspec.json.Encoder()


def row_key(endpoint: str, body: bytes, defaults: Fields) -> RowKey:
    """``body`` is a JSON object, checked before; ``defaults`` are fields of bodies that do not have them."""
    try:
        fields = _fields_decoder.decode(body)
    except msgspec.DecodeError:
        # Half a surrogate pair: the row's own failure, when it runs.
        return RowKey(body.replace(_BORDER, b"") + _BORDER + _RANDOM, 0)
    fields = with_defaults(fields, defaults)
    fields = {name: value for name, value in fields.items() if name not in _IGNORED and bytes(value) not in _ABSENT}
    limits = _limits(body, fields if defaults else None)
    # Label scores are drawn from logits alone, without chance.
    repeatable = endpoint == "/v1/score" or limits.temperature == 0 or limits.seed is not None
    prompt = _PROMPTS[endpoint](fields)
    settings = _encode({name: _decoded(value) for name, value in fields.items()})
    key = b"".join((prompt, _BORDER, _REPEATABLE if repeatable else _RANDOM, settings))
    return RowKey(key, limits.max_completion_tokens or limits.max_tokens or 0)


def prompt_length(key: bytes) -> int:
    """How much of the key is prompt."""
    return key.rindex(_BORDER)


def is_repeatable(key: bytes, prompt: int) -> bool:
    """Whether asking again would give the same answer: temperature 0, a seed, or label scores."""
    return key[prompt + 1 : prompt + 2] == _REPEATABLE


def _limits(body: bytes, fields: Fields | None) -> _Limits:
    try:
        return _limits_decoder.decode(body if fields is None else _message_encoder.encode(fields))
    except msgspec.ValidationError:
        # A value of the wrong type is the row's own failure, when it runs.
        return _Limits()


def _chat(fields: Fields) -> bytes:
    before = [_encode({name: _decoded(fields.pop(name))}) for name in _BEFORE_MESSAGES if name in fields]
    return b"".join((*before, *_messages(fields.pop("messages", msgspec.Raw(b"[]")))))


def _completion(fields: Fields) -> bytes:
    return _encode(_decoded(fields.pop("prompt", msgspec.Raw(b'""'))))


def _score(fields: Fields) -> bytes:
    if "messages" in fields:
        return _chat(fields)
    parts = [_encode(_decoded(fields.pop(name))) for name in ("query", "items") if name in fields]
    if bytes(fields.get("item_first", b"")) == b"true":
        parts.reverse()
    return b"".join(parts)


_PROMPTS = {"/v1/chat/completions": _chat, "/v1/completions": _completion, "/v1/score": _score}


def _messages(value: msgspec.Raw) -> list[bytes]:
    try:
        messages = _messages_decoder.decode(value)
    except msgspec.ValidationError:
        return [_encode(_decoded(value))]
    for message in messages:
        if isinstance(message.content, list):
            message.content = _joined_text(message.content)
    return [_message_encoder.encode(message) for message in messages]


def _joined_text(parts: list[Any]) -> Any:
    """Parts that are all text are one text to a model."""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if len(strings) == len(parts) else parts


def _decoded(value: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        # A number beyond Python's: as it stands.
        return msgspec.Raw(value)


def _encode(value: Any) -> bytes:
    return _encoder.encode(value)
