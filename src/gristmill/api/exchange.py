"""What every handler needs: who calls, the host as the caller sees it, JSON bodies in, JSON answers out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response

from gristmill.access.caller import Caller, caller_of
from gristmill.batches.scoped_host import ScopedHost
from gristmill.wire.errors import ApiError, clip, too_large
from gristmill.wire.json import encode

#: Of a request that asks the engine, whose prompts may be long, and of any other.
MAX_PROMPT_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 2 * 1024 * 1024
#: The media type of JSON lines, as Anthropic's API names it.
LINES = "application/x-jsonl"


def caller(request: Request) -> Caller:
    return caller_of(request.scope)


def host(request: Request) -> ScopedHost:
    """As the caller has it."""
    scope = request.scope
    if "scoped_host" not in scope:
        scope["scoped_host"] = ScopedHost(request.app.state.host, caller(request).scope)
    found: ScopedHost = scope["scoped_host"]
    return found


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(body), status, headers, media_type="application/json")


async def begun(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, the first of which have been read: an answer that has begun could not be taken back, so whatever
    is wrong before that is an error."""
    first = await anext(stream, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for piece in stream:
            yield piece

    return whole()


async def read_body(request: Request, limit: int = MAX_PROMPT_BYTES) -> bytes:
    """A whole JSON body of at most ``limit`` bytes.

    Raises ApiError: 415 for any other kind, which a web form could have sent, 413 above the limit, 503 without memory.
    """
    check_json(request)
    held = request.scope["held_body"]
    body = bytearray()
    async for chunk in request.stream():
        held.take(len(chunk))
        body += chunk
        if len(body) > limit:
            raise too_large(f"The request body is larger than the maximum of {limit:,} bytes.")
    return bytes(body)


def page_limit(request: Request, default: int, maximum: int) -> int:
    """The ``limit`` of a list."""
    given = request.query_params.get("limit")
    if given is None:
        return default
    if not given.isdecimal() or not given.isascii() or not 1 <= int(given[:9]) <= maximum or len(given) > 9:
        message = f"Invalid 'limit': expected an integer between 1 and {maximum}, but got '{given[:40]}'."
        raise ApiError(400, message, param="limit", code="invalid_value")
    return int(given)


def check_json(request: Request) -> None:
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    came = f"you specified the header 'Content-Type: {clip(given)}'" if given else "you sent no Content-Type header"
    message = (
        f"Unsupported content type: '{clip(given)}'. This API method only accepts 'application/json' requests, but "
        f"{came}. Send 'Content-Type: application/json' (curl: -H 'Content-Type: application/json')."
    )
    raise ApiError(415, message, code="unsupported_content_type")
