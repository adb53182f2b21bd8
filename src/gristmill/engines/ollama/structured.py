"""Structured output: from the OpenAI and vLLM parameters to Ollama's ``format``. Pure.

``format`` is "json" or a JSON schema, turned into a grammar by the server. There is no regular expression and no
grammar on Ollama's API, so those are refused. A choice is asked for as an enumeration of JSON strings, and the quotes
taken off the answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gristmill.engines.errors import unsupported_parameter
from gristmill.engines.protocol import Request
from gristmill.engines.structured_outputs import constraint_of


class Structure(NamedTuple):
    """``format`` is None where the answer is free text; ``choice``: the answer is a JSON string to be unquoted."""

    format: Any = None
    choice: bool = False


def structure(request: Request) -> Structure:
    """Raises EngineError naming what Ollama cannot do or what makes no sense."""
    constraint = constraint_of(request)
    if constraint is None:
        return Structure()
    if constraint.kind == "json_object":
        return Structure("json")
    if constraint.kind == "json":
        return Structure(constraint.value)
    if constraint.kind == "choice":
        return Structure({"type": "string", "enum": constraint.value}, choice=True)
    raise unsupported_parameter(constraint.param, "ollama")
