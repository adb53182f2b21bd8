"""A page as a response."""

from __future__ import annotations

from fastapi import Response

from gristmill.html_page import render
from gristmill.web.assets import address
from gristmill.web.headers import SECURITY_HEADERS


def page(template: str, /, *, status: int = 200, **values: object) -> Response:
    """``template`` of ``web/templates`` by its name without ending, filled in; it extends ``frame``."""
    body = render(f"web/templates/{template}.html.jinja", asset=address, **values)
    headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
    return Response(body, status, headers, media_type="text/html")
