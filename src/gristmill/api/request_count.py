"""Counting requests by the template of their route, so that no id becomes a label."""

from __future__ import annotations

from starlette.types import Scope

from gristmill.telemetry.metrics import HTTP_REQUESTS

#: Anybody can invent further ones.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: As nginx logs a client that goes away before there is an answer.
CLIENT_CLOSED = 499


def count_request(scope: Scope, status: int | None) -> None:
    """``status`` None where the client did not wait for one."""
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = getattr(scope.get("route"), "path", None)
    HTTP_REQUESTS.labels(method, route or "other", str(status or CLIENT_CLOSED)).inc()
