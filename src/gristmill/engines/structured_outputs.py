"""What a request wants its answer constrained to: OpenAI's ``response_format`` and vLLM's ``structured_outputs``. Pure.

``structured_outputs`` is an object with exactly one constraint; see
https://docs.vllm.ai/en/latest/features/structured_outputs.html. Engines that turn either parameter into terms of their
own read it here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gristmill.engines.closed_schema import closed
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Request
from gristmill.wire.chat import ChatCompletionRequest


class Constraint(NamedTuple):
    """``kind`` is vLLM's name: json_object, json (``value``: a schema), choice (texts), regex (a text), or another,
    with whatever was sent. ``param`` is where it came from, for errors about it. Schemas are ``closed``. ``lenient``:
    keywords of a schema that cannot be enforced are left out, instead of refusing it."""

    kind: str
    value: Any
    param: str
    lenient: bool = False


def constraint_of(request: Request) -> Constraint | None:
    """None where the answer is free text. Raises EngineError (invalid_request) for what cannot be understood."""
    response_format = request.response_format if isinstance(request, ChatCompletionRequest) else None
    if request.structured_outputs is not None:
        return structured_outputs(request.structured_outputs, response_format)
    return _response_format(response_format)


def structured_outputs(wanted: Any, response_format: Any) -> Constraint:
    """The constraint of a request that has ``structured_outputs``. Raises EngineError (invalid_request) when it holds
    none or several, or ``response_format`` asks for something too."""
    if response_format not in (None, {"type": "text"}):
        raise invalid("structured_outputs", "cannot be combined with 'response_format'")
    name, value = _read_constraint(wanted)
    param = f"structured_outputs.{name}"
    if name == "json":
        value = _read_schema(value)
    elif name == "choice":
        value = _read_choices(value)
    elif name == "regex" and not (isinstance(value, str) and value):
        raise invalid(param, "must be a regular expression (a text that is not empty)")
    return Constraint(name, value, param)


def _response_format(wanted: Any) -> Constraint | None:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint("json_object", True, "response_format")
    if kind == "json_schema":
        inner = wanted.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        param = "response_format.json_schema.schema"
        if not isinstance(schema, dict):
            raise invalid(param, "must be a JSON schema (an object)")
        return Constraint("json", closed_schema(schema, param), param, lenient=inner.get("strict") is not True)
    raise invalid("response_format.type", "must be one of 'text', 'json_object', 'json_schema'")


def _read_constraint(wanted: Any) -> tuple[str, Any]:
    """Name and value of the one constraint in ``structured_outputs``."""
    if not isinstance(wanted, dict):
        raise invalid("structured_outputs", "must be an object")
    given = [(name, value) for name, value in wanted.items() if value is not None and value is not False]
    if len(given) != 1:
        raise invalid("structured_outputs", "must hold exactly one constraint")
    return given[0]


def _read_schema(wanted: Any) -> dict[str, Any]:
    """The JSON schema of the constraint ``json``, which may be the text of one. Raises EngineError."""
    if isinstance(wanted, str):
        try:
            wanted = msgspec.json.decode(wanted)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            wanted = None
    if not isinstance(wanted, dict):
        raise invalid("structured_outputs.json", "must be a JSON schema (an object, or its text)")
    found: dict[str, Any] = closed_schema(wanted, "structured_outputs.json")
    return found


def closed_schema(schema: Any, param: str) -> Any:
    """The schema to decode by; see ``closed_schema.py``. Raises EngineError for one that no engine can take."""
    try:
        return closed(schema)
    except RecursionError:
        raise invalid(param, "is nested too deeply") from None
    except UnicodeEncodeError:
        raise invalid(param, "holds half of a surrogate pair, which is no character") from None


def _read_choices(wanted: Any) -> list[str]:
    """The texts of the constraint ``choice``. Raises EngineError."""
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) and each for each in wanted):
        raise invalid("structured_outputs.choice", "must be a list of texts that are not empty")
    return wanted


def invalid(name: str, must: str) -> EngineError:
    message = f"Invalid value for '{name}': it {must}."
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=name, code="invalid_value")
