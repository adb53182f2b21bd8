"""From Ollama's error answers to the engine's kinds of failure. Pure.

Ollama answers 500 for many mistakes of the caller, so the text decides, not the status alone.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gristmill.engines.errors import (
    EngineError,
    ErrorKind,
    context_length_exceeded,
    crashed,
    interrupted,
    unavailable,
    unknown_model,
)
from gristmill.engines.ollama.translation import Asked
from gristmill.http_values import seconds

#: What a caller did wrong, by what Ollama says about it, with the parameter's name in OpenAI's terms.
_CALLER = (
    (re.compile(r"invalid format|failed to parse grammar|json.?schema", re.I), "response_format"),
    (re.compile(r'option "(?P<name>\w+)" must be', re.I), None),
    (re.compile(r"does not support tools", re.I), "tools"),
    (re.compile(r"does not support", re.I), None),
    (re.compile(r"no user query found", re.I), "messages"),
)
_TOO_LONG = re.compile(r"exceeds? (the )?(available |maximum )?context|context (length|size|window).*exceed", re.I)
_NO_MODEL = re.compile(r"model .*not found", re.I)
#: The model cannot be loaded: no row can be answered, so all wait instead of failing one after the other.
_CANNOT_LOAD = re.compile(
    r"requires more system memory|out of memory|failed to load|unable to load|error loading|timed out waiting", re.I
)
#: What Ollama says when the runner process behind it ends, or its connection to the runner breaks (``llm/server.go``).
_RUNNER_DIED = re.compile(
    r"runner (process )?has (terminated|unexpectedly stopped)|\bEOF\b|connection (reset|refused)|broken pipe|"
    r"forcibly closed",
    re.I,
)
_OPENAI_NAMES = {"num_predict": "max_completion_tokens"}


def failure(
    status: int, body: bytes, retry_after: str | None, asked: Asked | None, served: tuple[str, ...], model: str = ""
) -> EngineError:
    """What an answer that is not 200 means. ``served`` are the models to name when this one is gone."""
    text, details = _read(body)
    if details.get("type") == "exceed_context_size_error" and asked is not None:
        return context_length_exceeded(details["n_prompt_tokens"], asked.num_predict, details["n_ctx"])
    if status in (429, 503):
        return EngineError(
            ErrorKind.OVERLOADED, f"Ollama is busy: {text}", status=429, retry_after=seconds(retry_after)
        )
    if status == 404 and _NO_MODEL.search(text):
        return unknown_model(model if asked is None else asked.body.model, served)
    if status in (401, 403, 404, 502, 504):
        return unavailable(f"What answers in Ollama's place says {status}: {text}", crashed="Ollama")
    caller = _caller_mistake(text)
    if caller is not None:
        return caller
    if status >= 500 and status != 501:
        return _engine(text)
    if status == 499:
        return interrupted(f"Ollama failed: {text}")
    return EngineError(ErrorKind.INVALID_REQUEST, f"Ollama refused the request: {text}", status=status)


def stream_failure(text: str) -> EngineError:
    """What an error means that came after the first byte of a stream, whose status was 200."""
    caller = _caller_mistake(text)
    if caller is not None:
        return caller
    return _engine(text)


def _caller_mistake(text: str) -> EngineError | None:
    if _TOO_LONG.search(text):
        return _invalid(text, "messages", "context_length_exceeded")
    for pattern, param in _CALLER:
        if found := pattern.search(text):
            name = found.groupdict().get("name")
            return _invalid(text, _OPENAI_NAMES.get(name, name) if name else param, "invalid_value")
    return None


def _invalid(text: str, param: str | None, code: str) -> EngineError:
    return EngineError(ErrorKind.INVALID_REQUEST, f"Ollama refused the request: {text}", param=param, code=code)


def _engine(text: str) -> EngineError:
    if _CANNOT_LOAD.search(text):
        return unavailable(f"Ollama cannot load the model: {text}", crashed="Ollama")
    if _RUNNER_DIED.search(text):
        return crashed("Ollama's runner", f"Ollama's runner died while it was answering: {text}")
    return interrupted(f"Ollama failed: {text}")


def _read(body: bytes) -> tuple[str, dict[str, Any]]:
    """The message, and the details of llama.cpp's error, which Ollama passes on as JSON within a string."""
    try:
        error = msgspec.json.decode(body)["error"]
        if isinstance(error, str) and error.startswith("{"):
            error = msgspec.json.decode(error)["error"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return body[:300].decode("utf-8", "replace").strip() or "nothing", {}
    if isinstance(error, dict):
        return str(error.get("message", error)), error
    return str(error), {}
