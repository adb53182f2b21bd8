"""Errors as pages, for browsers; programs get them as JSON (``api/errors.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import Scope

from gristmill.web.page import page

_TITLES = {404: "Not found", 403: "Not allowed", 405: "Not allowed", 507: "No room on the disk"}


def wants_page(scope: Scope) -> bool:
    """Whether a person is asking: the paths of the API belong to programs, whoever asks."""
    path: str = scope["path"]
    return not (path == "/v1" or path.startswith("/v1/")) and "text/html" in Headers(scope=scope).get("accept", "")


def problem(status: int, message: str, headers: Mapping[str, str]) -> Response:
    title = _TITLES.get(status) or HTTPStatus(status).phrase.capitalize()
    answer = page("problem", status=status, title=title, message=message, here="")
    answer.headers.update(headers)
    return answer
