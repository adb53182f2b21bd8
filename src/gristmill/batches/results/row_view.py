"""What a line of an output or error file says, in plain values, whatever endpoint and engine it came from. Pure.

Engines' answers are passed on as they come, so nothing here trusts their form: what is not as expected is not shown.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from gristmill.batches import output_lines
from gristmill.wire.json import encode

Outcome = Literal["succeeded", "failed", "never ran", "waiting"]

#: Codes of rows that nobody was asked for.
_NEVER_RAN = (output_lines.CANCELLED.code, output_lines.EXPIRED.code, output_lines.INPUT_LOST.code)


class RowError(NamedTuple):
    """``status`` is the HTTP status the row got, None where it got none."""

    status: int | None
    code: str
    message: str


class Tokens(NamedTuple):
    """None where the answer does not say."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


class RowView(NamedTuple):
    """``line`` counts from 1 in the input file, None where it is not known; ``answer`` is the text of the answer, or
    the JSON of one that is no text; ``probabilities`` are those of a label score, a list for each item."""

    custom_id: str
    outcome: Outcome
    line: int | None = None
    answer: str = ""
    tokens: Tokens = Tokens()
    error: RowError | None = None
    probabilities: list[list[float]] | None = None


def waiting(custom_id: str, line: int) -> RowView:
    return RowView(custom_id, "waiting", line)


def read_line(data: bytes, line: int | None = None) -> RowView:
    """Of a line as ``output_lines`` writes it."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        return RowView("", "failed", line, error=RowError(None, "", "The stored line cannot be read."))
    custom_id = str(found.get("custom_id"))
    response = _dict(found.get("response"))
    if not response:
        error = _error(None, found.get("error"))
        return RowView(custom_id, "never ran" if error.code in _NEVER_RAN else "failed", line, error=error)
    status, body = _number(response.get("status_code")), _dict(response.get("body"))
    if status != 200:
        return RowView(custom_id, "failed", line, error=_error(status, body.get("error")))
    return RowView(custom_id, "succeeded", line, _answer(body), _tokens(body), None, _probabilities(body))


def _answer(body: dict[str, Any]) -> str:
    if choices := _dicts(body.get("choices")):
        return "\n\n".join(filter(None, map(_choice, choices)))
    # Responses have their items in ``output``, messages theirs in ``content``.
    items = _dicts(body.get("output")) or [body]
    parts = [part.get("text") for item in items for part in _dicts(item.get("content"))]
    if texts := [text for text in parts if isinstance(text, str)]:
        return "\n\n".join(texts)
    shown = {name: body[name] for name in ("scores", "data", "results", "output", "content") if name in body} or body
    return _json(shown)


def _choice(choice: dict[str, Any]) -> str:
    if isinstance(choice.get("text"), str):
        return str(choice["text"])
    message = _dict(choice.get("message"))
    parts = [message[name] for name in ("content", "refusal") if isinstance(message.get(name), str) and message[name]]
    if calls := message.get("tool_calls"):
        parts.append(_json(calls))
    return "\n\n".join(parts)


def _tokens(body: dict[str, Any]) -> Tokens:
    usage = _dict(body.get("usage"))
    prompt = _number(usage.get("prompt_tokens", usage.get("input_tokens")))
    details = _dict(usage.get("prompt_tokens_details", usage.get("input_tokens_details")))
    cached = _number(details.get("cached_tokens", usage.get("cache_read_input_tokens")))
    return Tokens(prompt, cached, _number(usage.get("completion_tokens", usage.get("output_tokens"))))


def _probabilities(body: dict[str, Any]) -> list[list[float]] | None:
    given = body.get("scores")
    if not isinstance(given, list) or not given:
        return None
    try:
        return msgspec.convert(given, list[list[float]])
    except msgspec.ValidationError:
        return None


def _error(status: int | None, given: Any) -> RowError:
    error = _dict(given)
    message = error.get("message") if error else given
    code = error.get("code") or error.get("type") or ""
    return RowError(status, str(code), message if isinstance(message, str) else _json(message))


def _dict(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _dicts(given: Any) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _number(given: Any) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def _json(given: Any) -> str:
    return encode(given).decode("utf-8", "replace")
