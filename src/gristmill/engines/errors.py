"""Why there is no completion: an error of a known kind, and what the caller is answered.

The kind alone decides what happens next (``dispatch/retry.py``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from gristmill.wire.errors import clip
from gristmill.wire.paths import EMBEDDINGS

_LISTED_MODELS = 20


class ErrorKind(enum.StrEnum):
    #: The request itself cannot be answered; never retried.
    INVALID_REQUEST = "invalid_request"
    #: The engine asks for a pause; retried, and not counted as an attempt.
    OVERLOADED = "overloaded"
    #: The engine cannot be reached, and has not begun with this request; everything that uses it waits.
    UNAVAILABLE = "unavailable"
    #: This request took too long; retried a few times.
    TIMEOUT = "timeout"
    #: This request was cut off while it was being answered; retried a few times.
    INTERRUPTED = "interrupted"


class EngineError(Exception):
    """Why there is no completion. ``status``, ``param``, ``code`` and ``type`` are what the caller is answered.

    ``crashed`` with INTERRUPTED: the server or worker that ended, or closed the connection, while it was answering this
    request. Whatever else it was answering may be the cause as well. With UNAVAILABLE: the server that had the request
    and answered that what stands behind it is away, be it because of this request.
    ``lost`` with INTERRUPTED: the server whose process is gone, with its machine or for another reason. As a rule that
    is the fault of no request.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | int | None = None,
        type: str | None = None,
        retry_after: float | None = None,
        crashed: str | None = None,
        lost: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.type = type
        self.retry_after = retry_after
        self.crashed = crashed
        self.lost = lost


def interrupted(message: str) -> EngineError:
    return EngineError(ErrorKind.INTERRUPTED, message, status=500)


def crashed(server: str, message: str) -> EngineError:
    """``server`` ended, or closed the connection, while it was answering the request."""
    return EngineError(ErrorKind.INTERRUPTED, message, status=500, crashed=server)


def unavailable(message: str, crashed: str | None = None) -> EngineError:
    return EngineError(ErrorKind.UNAVAILABLE, message, status=503, crashed=crashed)


def invalid_value(param: str, message: str) -> EngineError:
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="invalid_value")


def opened_and_continued() -> EngineError:
    message = (
        "'continue_final_message' and 'add_generation_prompt' cannot both be true: the prompt either continues the "
        "last message or opens a new one."
    )
    return invalid_value("continue_final_message", message)


def unsupported_parameter(name: str, engine: str) -> EngineError:
    message = f"Unsupported parameter: '{name}' is not supported by the {engine} engine."
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=name, code="unsupported_parameter")


def unknown_model(model: str, served: tuple[str, ...]) -> EngineError:
    more = len(served) - _LISTED_MODELS
    listed = ", ".join(served[:_LISTED_MODELS]) + (f", and {more:,} more" if more > 0 else "")
    message = f"The model '{clip(model)}' does not exist here. This server has: {listed or 'none'}."
    return EngineError(ErrorKind.INVALID_REQUEST, message, status=404, param="model", code="model_not_found")


def unsupported_endpoint(path: str, engine: str, served: Iterable[str]) -> EngineError:
    """``served``: the endpoints that can be asked of it."""
    message = f"The {engine} engine cannot answer {path} with the models it has here. It answers: {', '.join(served)}."
    if path == EMBEDDINGS:
        message += " For embeddings serve a model that embeds."
    return EngineError(ErrorKind.INVALID_REQUEST, message, status=404, code="unsupported_endpoint")


def input_too_long(context_length: int, tokens: int | None = None, size: int | None = None) -> EngineError:
    """Of something to embed; ``tokens`` where they were counted, ``size`` in bytes where that is enough to know."""
    asked = "an input is longer" if tokens is None else f"an input has {tokens:,}"
    asked = asked if size is None else f"an input has {size:,} bytes"
    message = (
        f"This model's maximum context length is {context_length:,} tokens. However, {asked}: shorten or split it."
    )
    return EngineError(ErrorKind.INVALID_REQUEST, message, param="input", code="context_length_exceeded")


def too_many_dimensions(wanted: int, most: int) -> EngineError:
    message = f"Invalid 'dimensions': this model's vectors have {most:,} numbers, but {wanted:,} are asked for."
    return invalid_value("dimensions", message)


def context_length_exceeded(
    prompt_tokens: int, output_tokens: int, context_length: int, output: str = "the completion"
) -> EngineError:
    message = (
        f"This model's maximum context length is {context_length} tokens. However, you requested "
        f"{prompt_tokens + output_tokens} tokens ({prompt_tokens} in the prompt, {output_tokens} in {output})."
    )
    return EngineError(ErrorKind.INVALID_REQUEST, message, param="messages", code="context_length_exceeded")
