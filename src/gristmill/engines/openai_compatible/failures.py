"""From a server's error answers to the engine's kinds of failure. Pure.

The statuses mean what HTTP says, with exceptions that the text decides: a prompt that is too long, a model that is
still being loaded, and 500s of llama.cpp that are the caller's mistake.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, crashed, interrupted, unavailable
from gristmill.http_values import seconds

#: vLLM and SGLang: "maximum context length", "longer than the model's context length"; llama.cpp has a type for it.
_TOO_LONG = re.compile(r"context (length|size|window)", re.I)
_TOO_LONG_TYPE = "exceed_context_size_error"
#: llama.cpp's 500 to an input that it is to embed or rank.
_TOO_LARGE = re.compile(r"input .*is too large to process", re.I)
#: llama.cpp while it loads; another Gristmill while its engine is away.
_AWAY = re.compile(r"loading model|engine_unavailable", re.I)
#: vLLM's API server answers so whatever its engine was answering when it died, and ends itself after that.
_ENGINE_DIED = re.compile(r"EngineCore encountered an issue|EngineDeadError")
#: Older llama.cpp (b7950 and before) answers 500 to messages that the model's chat template refuses; newer ones 400.
#: Images and sound for a model without eyes or ears are a 500 in newer ones, too, and so are tools without --jinja.
_CALLER = re.compile(
    r"jinja exception|raise_exception|roles must alternate|input is not supported|requires --jinja", re.I
)


class ServerError(msgspec.Struct, frozen=True):
    """What an error answer says, in whichever of the usual shapes."""

    message: str
    type: str = ""
    param: str | None = None
    code: str | int | None = None


def failure(status: int, body: bytes, retry_after: str | None) -> EngineError:
    """What an answer that is not 200 means."""
    return _failure(status, _read(body), seconds(retry_after))


def path_missing(path: str, body: bytes) -> EngineError:
    """A 404 of a server that answers otherwise, and does not mean the model."""
    said = _read(body)
    message = f"The server has no {path}: {said.message}"
    return _invalid(said, message, 404)


def stream_failure(error: Any) -> EngineError:
    """What an error means that came after the first byte of a stream; vLLM and llama.cpp put the status in it."""
    code = error.get("code") if isinstance(error, dict) else None
    return _failure(code if isinstance(code, int) and code >= 400 else 500, _error_body(error), None)


def _failure(status: int, body: ServerError, pause: float | None) -> EngineError:
    text = body.message
    if _ENGINE_DIED.search(text):
        return crashed("the server", f"The server's engine died while it was answering: {text}")
    if body.type == _TOO_LONG_TYPE or (status in (400, 413, 422) and _TOO_LONG.search(text)) or _TOO_LARGE.search(text):
        return EngineError(ErrorKind.INVALID_REQUEST, text, param="messages", code="context_length_exceeded")
    if status in (401, 403):
        return unavailable(f"The server refuses the key (status {status}): {text}")
    if status == 404 and (body.param == "model" or "model" in text.lower()):
        return EngineError(ErrorKind.INVALID_REQUEST, text, status=404, param="model", code="model_not_found")
    if status in (404, 502) or status < 400 or (status == 503 and _AWAY.search(f"{text} {body.code}")):
        return unavailable(f"The server says {status}: {text}", crashed="the server")
    if status in (408, 429, 503):
        return EngineError(ErrorKind.OVERLOADED, f"The server is busy: {text}", status=429, retry_after=pause)
    if status == 504:
        return EngineError(ErrorKind.TIMEOUT, f"The server took too long: {text}", status=504)
    if status == 500 and _CALLER.search(text):
        # Its type and code would say that the server failed.
        return _invalid(ServerError(text, param=body.param), text, 400)
    if status >= 500 and status != 501:
        return interrupted(f"The server failed (status {status}): {text}")
    return _invalid(body, text, status)


def _invalid(body: ServerError, message: str, status: int) -> EngineError:
    return EngineError(
        ErrorKind.INVALID_REQUEST, message, status=status, param=body.param, code=body.code, type=body.type or None
    )


def _read(body: bytes) -> ServerError:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ServerError(body[:300].decode("utf-8", "replace").strip() or "nothing")
    if isinstance(answer, dict):
        # SGLang has the fields at the top, FastAPI's own answers have "detail".
        return _error_body(answer.get("error") or (answer if "message" in answer else answer.get("detail", answer)))
    return _error_body(answer)


def _error_body(error: Any) -> ServerError:
    if not isinstance(error, dict):
        return ServerError(str(error))
    param, code = error.get("param"), error.get("code")
    return ServerError(
        message=str(error.get("message", error)),
        type=str(error.get("type", "")),
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str | int) and not isinstance(code, bool) else None,
    )
