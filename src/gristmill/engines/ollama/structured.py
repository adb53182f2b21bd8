"""Structured output: from the OpenAI and vLLM parameters to Ollama's ``format``. Pure.

``format`` is "json" or a JSON schema, turned into a grammar by the server. There is no regular expression and no
grammar on Ollama's API, so those are refused. A choice is asked for as an enumeration of JSON strings, and the quotes
taken off the answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gristmill.engines.protocol import EngineError, ErrorKind, Request, unsupported_parameter
from gristmill.wire.chat import ChatCompletionRequest


class Structure(NamedTuple):
    """``format`` is None where the answer is free text; ``choice``: the answer is a JSON string to be unquoted."""

    format: Any = None
    choice: bool = False


def structure(request: Request) -> Structure:
    """Raises EngineError naming what Ollama cannot do or what makes no sense."""
    chosen = request.structured_outputs
    response_format = request.response_format if isinstance(request, ChatCompletionRequest) else None
    if chosen is None:
        return _response_format(response_format)
    if response_format is not None and response_format != {"type": "text"}:
        raise _invalid("structured_outputs", "cannot be combined with 'response_format'")
    return _structured_outputs(chosen)


def _response_format(wanted: Any) -> Structure:
    if wanted is None:
        return Structure()
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return Structure()
    if kind == "json_object":
        return Structure("json")
    if kind == "json_schema":
        inner = wanted.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if not isinstance(schema, dict):
            raise _invalid("response_format.json_schema.schema", "must be a JSON schema (an object)")
        return Structure(schema)
    raise _invalid("response_format.type", "must be one of 'text', 'json_object', 'json_schema'")


def _structured_outputs(wanted: Any) -> Structure:
    if not isinstance(wanted, dict):
        raise _invalid("structured_outputs", "must be an object")
    given = {name: value for name, value in wanted.items() if value is not None and value is not False}
    for name in given:
        if name not in ("json", "json_object", "choice"):
            raise unsupported_parameter(f"structured_outputs.{name}", "ollama")
    if len(given) != 1:
        raise _invalid("structured_outputs", "must hold exactly one constraint")
    if "json_object" in given:
        return Structure("json")
    return Structure(_schema(given["json"])) if "json" in given else _choice(given["choice"])


def _schema(wanted: Any) -> dict[str, Any]:
    if isinstance(wanted, str):
        try:
            wanted = msgspec.json.decode(wanted)
        except msgspec.DecodeError:
            wanted = None
    if not isinstance(wanted, dict):
        raise _invalid("structured_outputs.json", "must be a JSON schema (an object, or its text)")
    return wanted


def _choice(wanted: Any) -> Structure:
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) for each in wanted):
        raise _invalid("structured_outputs.choice", "must be a list of strings")
    return Structure({"type": "string", "enum": wanted}, choice=True)


def _invalid(name: str, must: str) -> EngineError:
    message = f"Invalid value for '{name}': it {must}."
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=name, code="invalid_value")
