"""A row's request as a page tells of it. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gristmill.html_page import clipped
from gristmill.wire.json import encode


class ToldRequest(NamedTuple):
    """``text`` is the line of the input, indented and clipped; ``defaults`` what the batch adds to lines that lack it.
    ``body`` is the line's own, as far as it can be read."""

    text: str
    defaults: str
    body: dict[str, Any] | None


def told_request(line: bytes | None, defaults: dict[str, Any] | None) -> ToldRequest | None:
    """None where the input is not there any more."""
    if line is None:
        return None
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return ToldRequest(clipped(line.decode("utf-8", "replace")), _indented(defaults), None)
    body = found.get("body") if isinstance(found, dict) else None
    return ToldRequest(_indented(found), _indented(defaults), body if isinstance(body, dict) else None)


def _indented(value: Any) -> str:
    return "" if value is None else clipped(msgspec.json.format(encode(value), indent=2).decode("utf-8", "replace"))
