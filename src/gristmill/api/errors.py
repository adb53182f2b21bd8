"""Every error leaves as OpenAI's error object, or as Anthropic's on its paths, whoever raised it."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from gristmill.access.refusals import over_limit
from gristmill.api.exchange import host, reply
from gristmill.api.idempotency import first_answer
from gristmill.engines.errors import EngineError
from gristmill.inference import messages, messages_errors
from gristmill.inference.endpoints import UNAVAILABLE_ENDPOINTS, offered
from gristmill.inference.failures import api_error
from gristmill.storage.errors import (
    BlobLost,
    KeyUsed,
    OutcomeUnknown,
    OverLimit,
    StorageError,
    UnknownCursor,
    Unreachable,
)
from gristmill.telemetry.log import get_logger
from gristmill.web.problem import problem, wants_page
from gristmill.wire.errors import ApiError, clip, server_error
from gristmill.wire.messages import MessageErrorResponse

log = get_logger(__name__)

#: Seconds after which it is worth another try where storage is away.
_RETRY_AFTER = 5


def install(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(UnknownCursor, _unknown_cursor)
    app.add_exception_handler(KeyUsed, _key_used)
    app.add_exception_handler(OverLimit, _over_limit)
    app.add_exception_handler(StorageError, _storage_error)
    app.add_exception_handler(HTTPException, _http_error)


def answer(error: ApiError, scope: Scope) -> Response:
    """In the words of the API that the path belongs to; as a page for a browser that asks for one."""
    headers = {}
    if error.retry is not None:
        headers["x-should-retry"] = "true" if error.retry else "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if wants_page(scope):
        return problem(error.status, error.body.message, headers)
    if not is_anthropic(scope):
        return reply(error.response(), error.status, headers)
    body = messages_errors.error_body(error.status, error.body.message, error.body.param)
    response = MessageErrorResponse(body, scope.get("request_id"))
    return reply(response, messages_errors.status(error.status), headers)


def is_anthropic(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == messages.PATH or path.startswith(f"{messages.PATH}/")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return answer(error, request.scope)


async def _engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return answer(api_error(error), request.scope)


async def _unknown_cursor(request: Request, error: Exception) -> Response:
    message = f"Invalid 'after': there is no object with id '{clip(str(error))}' in this list."
    return answer(ApiError(400, message, param="after", code="invalid_value"), request.scope)


async def _key_used(request: Request, error: Exception) -> Response:
    """An exception to storage, because nothing was stored; to the client, most often the answer."""
    assert isinstance(error, KeyUsed)
    try:
        return first_answer(error)
    except ApiError as refusal:
        return answer(refusal, request.scope)


async def _over_limit(request: Request, error: Exception) -> Response:
    assert isinstance(error, OverLimit)
    return answer(over_limit(error), request.scope)


async def _storage_error(request: Request, error: Exception) -> Response:
    log.error("storage refused", reason=str(error))
    if isinstance(error, BlobLost):
        return answer(server_error(500, str(error), "file_content_lost", retry=False), request.scope)
    if isinstance(error, Unreachable):
        refusal = server_error(503, str(error), "storage_unavailable", retry=True, retry_after=_RETRY_AFTER)
        return answer(refusal, request.scope)
    if isinstance(error, OutcomeUnknown):
        return answer(server_error(503, str(error), "storage_unavailable", retry=False), request.scope)
    # Repeating the request does not make room on a disk.
    return answer(server_error(507, str(error), "storage_unavailable", retry=False), request.scope)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    path, method = clip(request.url.path), clip(request.method)
    if error.status_code == 404 and path in UNAVAILABLE_ENDPOINTS:
        paths = offered(host(request).dispatcher.endpoints)
        message = f"This server does not offer {path}. It offers: {', '.join(paths)}."
        return answer(ApiError(404, message, code="unsupported_endpoint"), request.scope)
    if error.status_code == 404:
        return answer(ApiError(404, f"Invalid URL ({method} {path})", code="unknown_url"), request.scope)
    if error.status_code == 405:
        return answer(ApiError(405, f"Not allowed to {method} on {path}.", code="method_not_supported"), request.scope)
    return answer(ApiError(error.status_code, str(error.detail)), request.scope)
