"""What the operator sets in every request's body: ``-O body.NAME=JSON`` and ``-O default_body.NAME=JSON``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gristmill.user_error import UserError

_Fields = dict[str, msgspec.Raw]

_PINNED, _DEFAULT = "body.", "default_body."
#: Set by the request alone: Gristmill answers by them.
_NOT_SETTABLE = frozenset({"model", "n", "stream"})

_fields_decoder = msgspec.json.Decoder(_Fields)
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class BodyField(NamedTuple):
    """A field of the body, or of an object within it. ``pinned``: it wins over the request's own."""

    path: tuple[str, ...]
    value: msgspec.Raw
    pinned: bool


def is_body_option(name: str) -> bool:
    return name.startswith((_PINNED, _DEFAULT))


def body_field(name: str, value: str) -> BodyField:
    """From an option, such as ``body.chat_template_kwargs.enable_thinking`` with ``false``. Raises UserError."""
    path = tuple(name.removeprefix(_DEFAULT).removeprefix(_PINNED).split("."))
    if not all(path):
        raise UserError(f"The option '{name}' names no field: write it like body.top_k=20.")
    if path[0] in _NOT_SETTABLE:
        raise UserError(f"The option '{name}' cannot be set: '{path[0]}' is for each request to say.")
    data = value.strip().encode()
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise UserError(
            f"The value of the option '{name}' is not JSON: {value}. Text stands in double quotes, in a shell like "
            f"-O '{name}=\"text\"'."
        ) from None
    return BodyField(path, _raw_decoder.decode(data), name.startswith(_PINNED))


def pinned_values(fields: Sequence[BodyField]) -> dict[str, Any]:
    """The values of whole fields that are pinned, by name."""
    return {
        field.path[0]: msgspec.json.decode(field.value) for field in fields if field.pinned and len(field.path) == 1
    }


def with_fields(body: bytes, fields: Sequence[BodyField]) -> bytes:
    """``body`` with ``fields`` set; everything else in it stays as it is."""
    if not fields:
        return body
    found = _fields_decoder.decode(body)
    for field in fields:
        _set(found, field.path, field.value, field.pinned)
    return msgspec.json.encode(found)


def _set(found: _Fields, path: tuple[str, ...], value: msgspec.Raw, pinned: bool) -> None:
    name, inner = path[0], path[1:]
    if name in found and not pinned and not (inner and _is_object(found[name])):
        return
    if not inner:
        found[name] = value
        return
    within = _fields_decoder.decode(found[name]) if name in found and _is_object(found[name]) else {}
    _set(within, inner, value, pinned)
    found[name] = msgspec.Raw(msgspec.json.encode(within))


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(value).lstrip()[:1] == b"{"
