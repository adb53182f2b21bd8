"""vLLM's ``structured_outputs`` parameter, read for engines that turn it into terms of their own. Pure.

It is an object with exactly one constraint; https://docs.vllm.ai/en/latest/features/structured_outputs.html.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gristmill.engines.protocol import EngineError, ErrorKind, Request
from gristmill.wire.chat import ChatCompletionRequest


def read_constraint(request: Request) -> tuple[str, Any]:
    """Name and value of the one constraint of a request that has ``structured_outputs``.

    Raises EngineError (invalid_request) when there is none or several, or ``response_format`` asks for something too.
    """
    if isinstance(request, ChatCompletionRequest) and request.response_format not in (None, {"type": "text"}):
        raise invalid("structured_outputs", "cannot be combined with 'response_format'")
    wanted: Any = request.structured_outputs
    if not isinstance(wanted, dict):
        raise invalid("structured_outputs", "must be an object")
    given = [(name, value) for name, value in wanted.items() if value is not None and value is not False]
    if len(given) != 1:
        raise invalid("structured_outputs", "must hold exactly one constraint")
    return given[0]


def read_schema(wanted: Any) -> dict[str, Any]:
    """The JSON schema of the constraint ``json``, which may be the text of one. Raises EngineError."""
    if isinstance(wanted, str):
        try:
            wanted = msgspec.json.decode(wanted)
        except msgspec.DecodeError:
            wanted = None
    if not isinstance(wanted, dict):
        raise invalid("structured_outputs.json", "must be a JSON schema (an object, or its text)")
    return wanted


def read_choices(wanted: Any) -> list[str]:
    """The texts of the constraint ``choice``. Raises EngineError."""
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) and each for each in wanted):
        raise invalid("structured_outputs.choice", "must be a list of texts that are not empty")
    return wanted


def invalid(name: str, must: str) -> EngineError:
    message = f"Invalid value for '{name}': it {must}."
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=name, code="invalid_value")
