"""The body of a batch's line, and what the batch's defaults add to it."""

from __future__ import annotations

from typing import Any

import msgspec

Fields = dict[str, msgspec.Raw]

_NONE = b"[]"


class _BodyLine(msgspec.Struct):
    body: msgspec.Raw


class _FieldsLine(msgspec.Struct):
    body: Fields


_line_decoder = msgspec.json.Decoder(_BodyLine)
_fields_line_decoder = msgspec.json.Decoder(_FieldsLine)
_fields_decoder = msgspec.json.Decoder(Fields)


def body_of(line: bytes) -> bytes:
    """The body as it stands in a line that has been checked."""
    return bytes(_line_decoder.decode(line).body)


def fields_of(line: bytes) -> Fields:
    """The body's fields, undecoded. Looks closer than ``body_of``: raises DecodeError for some lines that it takes."""
    return _fields_line_decoder.decode(line).body


def completed_body(line: bytes, defaults: Fields) -> bytes:
    """The body to run."""
    body = body_of(line)
    return msgspec.json.encode(with_defaults(_fields_decoder.decode(body), defaults)) if defaults else body


def default_fields(defaults: dict[str, Any] | None) -> Fields:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in (defaults or {}).items()}


def with_defaults(fields: Fields, defaults: Fields) -> Fields:
    """What a line sets itself wins; only messages are not replaced: the defaults' come first, the line's follow."""
    if not defaults:
        return fields
    merged = defaults | fields
    if "messages" in defaults and "messages" in fields:
        merged["messages"] = _joined(bytes(defaults["messages"]).strip(), bytes(fields["messages"]).strip())
    return merged


def _joined(leading: bytes, own: bytes) -> msgspec.Raw:
    """Two arrays as one. What is no array is left as it is, for the line to fail with."""
    if not own.startswith(b"[") or leading == _NONE:
        return msgspec.Raw(own)
    if own[1:-1].strip() == b"" or not leading.startswith(b"["):
        return msgspec.Raw(leading)
    return msgspec.Raw(leading[:-1] + b"," + own[1:])
