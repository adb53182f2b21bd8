"""The error object of the OpenAI API, and the exception that carries one to whoever answers."""

from __future__ import annotations

import msgspec


class ErrorBody(msgspec.Struct):
    """All four keys are always present, null or not: clients index them. Servers may have a number for a ``code``."""

    message: str
    type: str
    param: str | None = None
    code: str | int | None = None


class ErrorResponse(msgspec.Struct):
    error: ErrorBody


class ApiError(Exception):
    """A request that cannot be answered; becomes an HTTP answer, or a line of a batch's error file.

    ``retry`` is what the client is told in ``x-should-retry``: the official SDK repeats 409s and 5xx
    unless told not to. ``None`` leaves the client to its own rules.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | int | None = None,
        type: str = "invalid_request_error",
        retry: bool | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(message=message, type=type, param=param, code=code)
        self.retry = retry
        self.retry_after = retry_after

    def response(self) -> ErrorResponse:
        return ErrorResponse(self.body)


_CLIPPED = 200


def clip(text: str) -> str:
    """What a client sent, as an error message repeats it: not all of it where it is long."""
    return text if len(text) <= _CLIPPED else f"{text[:_CLIPPED]}..."


def invalid_value(param: str, given: str, supported: str) -> ApiError:
    message = f"Invalid value: '{clip(given)}'. Supported values are: {supported}."
    return ApiError(400, message, param=param, code="invalid_value")


def missing_parameter(param: str) -> ApiError:
    message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param=param, code="missing_required_parameter")


def wrong_type(param: str, expected: str, given: str) -> ApiError:
    """``expected`` and ``given`` with their articles: ``a string``."""
    message = f"Invalid type for '{param}': expected {expected}, but got {given} instead."
    return ApiError(400, message, param=param, code="invalid_type")


def string_too_long(param: str, what: str, size: int, limit: int) -> ApiError:
    """``size`` and ``limit`` in characters."""
    message = f"Invalid '{param}': {what} is {size:,} characters long, the maximum is {limit:,}."
    return ApiError(400, message, param=param, code="string_above_max_length")


def too_large(message: str, *, param: str | None = None, code: str = "request_too_large") -> ApiError:
    return ApiError(413, message, param=param, code=code)


def server_error(
    status: int, message: str, code: str | None = None, *, retry: bool | None = None, retry_after: int | None = None
) -> ApiError:
    """A failure that is not the client's."""
    return ApiError(status, message, type="server_error", code=code, retry=retry, retry_after=retry_after)


def not_found(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(404, message, param=param, code=code)
