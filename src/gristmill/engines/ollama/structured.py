"""Structured output: from the OpenAI and vLLM parameters to Ollama's ``format``. Pure.

``format`` is "json" or a JSON schema, turned into a grammar by the server. There is no regular expression and no
grammar on Ollama's API, so those are refused. A choice is asked for as an enumeration of JSON strings, and the quotes
taken off the answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gristmill.engines.protocol import Request, unsupported_parameter
from gristmill.engines.structured_outputs import invalid, read_choices, read_constraint, read_schema
from gristmill.wire.chat import ChatCompletionRequest


class Structure(NamedTuple):
    """``format`` is None where the answer is free text; ``choice``: the answer is a JSON string to be unquoted."""

    format: Any = None
    choice: bool = False


def structure(request: Request) -> Structure:
    """Raises EngineError naming what Ollama cannot do or what makes no sense."""
    if request.structured_outputs is not None:
        return _structured_outputs(*read_constraint(request))
    return _response_format(request.response_format if isinstance(request, ChatCompletionRequest) else None)


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
            raise invalid("response_format.json_schema.schema", "must be a JSON schema (an object)")
        return Structure(schema)
    raise invalid("response_format.type", "must be one of 'text', 'json_object', 'json_schema'")


def _structured_outputs(name: str, wanted: Any) -> Structure:
    if name == "json_object":
        return Structure("json")
    if name == "json":
        return Structure(read_schema(wanted))
    if name == "choice":
        return Structure({"type": "string", "enum": read_choices(wanted)}, choice=True)
    raise unsupported_parameter(f"structured_outputs.{name}", "ollama")
