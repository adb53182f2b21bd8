"""The body of a batch's line, completed by the batch's defaults."""

from __future__ import annotations

from typing import Any

import msgspec

Fields = dict[str, msgspec.Raw]

_NONE = b"[]"


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
    """Two arrays as one. What is no array is left for the line's own check to complain about."""
    if not own.startswith(b"[") or leading == _NONE:
        return msgspec.Raw(own)
    if own[1:-1].strip() == b"":
        return msgspec.Raw(leading)
    return msgspec.Raw(leading[:-1] + b"," + own[1:])
