"""Errors in the words of Anthropic's API. Pure."""

from __future__ import annotations

from gristmill.wire.messages import MessageErrorBody

#: Statuses that Anthropic has another one for. Nothing is overloaded where an engine is away, but clients know no other
#: error that says "later".
_STATUSES = {503: 529, 507: 500}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def status(of: int) -> int:
    """The HTTP status for what has the status ``of`` in this server's other calls."""
    return _STATUSES.get(of, of)


def error_body(of: int, message: str, param: str | None = None) -> MessageErrorBody:
    """What is not listed has the type of its kind, as Anthropic's own has. ``param`` is named in the message."""
    kind = _TYPES.get(status(of)) or ("invalid_request_error" if of < 500 else "api_error")
    return MessageErrorBody(kind, message if param is None or param in message else f"{param}: {message}")
