"""An engine's failure in the words of the OpenAI API."""

from __future__ import annotations

from gristmill.engines.protocol import EngineError, ErrorKind
from gristmill.wire.errors import ApiError


def api_error(error: EngineError) -> ApiError:
    match error.kind:
        case ErrorKind.INVALID_REQUEST:
            return ApiError(error.status, error.message, param=error.param, code=error.code)
        case ErrorKind.OVERLOADED:
            pause = None if error.retry_after is None else max(1, round(error.retry_after))
            return ApiError(429, error.message, type="rate_limit_error", code="rate_limit_exceeded", retry_after=pause)
        case ErrorKind.UNAVAILABLE:
            return ApiError(503, error.message, type="server_error", code="engine_unavailable")
        case ErrorKind.TIMEOUT:
            return ApiError(504, error.message, type="server_error", code="request_timeout")
        case ErrorKind.INTERRUPTED:
            return ApiError(500, error.message, type="server_error", code="engine_error")
