"""An engine's failure in the words of the OpenAI API."""

from __future__ import annotations

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.wire.errors import ApiError, server_error


def api_error(error: EngineError) -> ApiError:
    match error.kind:
        case ErrorKind.INVALID_REQUEST:
            kind = error.type or "invalid_request_error"
            return ApiError(error.status, error.message, param=error.param, code=error.code, type=kind)
        case ErrorKind.OVERLOADED:
            pause = None if error.retry_after is None else max(1, round(error.retry_after))
            return ApiError(429, error.message, type="rate_limit_error", code="rate_limit_exceeded", retry_after=pause)
        case ErrorKind.UNAVAILABLE:
            return server_error(503, error.message, "engine_unavailable")
        case ErrorKind.TIMEOUT:
            return server_error(504, error.message, "request_timeout")
        case ErrorKind.INTERRUPTED:
            return server_error(500, error.message, "engine_error")
