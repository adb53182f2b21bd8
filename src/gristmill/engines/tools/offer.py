"""What tools a request offers, and whether one must be called: from ``tools`` and ``tool_choice``, or their deprecated
forms ``functions`` and ``function_call``. Pure.

See https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.nesting import MOST_LEVELS, too_deep
from gristmill.engines.structured_outputs import closed_schema, invalid
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.errors import clip
from gristmill.wire.tools import FunctionDefinition, NamedFunction, NamedToolChoice


class Offered(NamedTuple):
    """One function, and the parameter of the request that describes its arguments, for errors."""

    function: FunctionDefinition
    param: str

    @property
    def name(self) -> str:
        return self.function.name

    def arguments(self) -> dict[str, Any]:
        """The schema of the arguments to decode by: always of an object, and closed. Raises EngineError for one that no
        engine can take."""
        given = self.function.parameters
        if given is None:
            given = {"type": "object", "properties": {}}
        found: dict[str, Any] = closed_schema(given, self.param)
        if found.setdefault("type", "object") != "object":
            raise invalid(self.param, "must be a schema of an object")
        return found

    def description(self) -> dict[str, Any]:
        """As a model is told of it: the tool as OpenAI writes it, without what is meant for the server."""
        function = {"name": self.name, "description": self.function.description, "parameters": self.function.parameters}
        return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


class Offer(NamedTuple):
    """``tools`` are those the model is told of, ``callable`` those it may call; ``forced``: the answer must be calls.
    ``several``: one answer may hold several calls. ``param`` is where the request has the tools, for errors."""

    tools: tuple[Offered, ...]
    callable: tuple[Offered, ...]
    forced: bool
    several: bool
    param: str


def offer_of(request: ChatCompletionRequest) -> Offer | None:
    """None where nothing may be called: without tools, or with the choice ``none``. Raises EngineError (invalid
    request) for a choice that makes no sense."""
    if request.tools and request.functions:
        raise invalid("functions", "cannot be combined with 'tools', whose deprecated form it is")
    legacy = bool(request.functions)
    tools = _offered(request)
    choice = request.function_call if legacy else request.tool_choice
    if not tools:
        _check_nothing_chosen(request)
        return None
    if choice == "none":
        return None
    param = "functions" if legacy else "tools"
    if choice is None or choice == "auto":
        return Offer(tools, tools, False, not legacy and request.parallel_tool_calls is not False, param)
    if choice == "required":
        # Where it must call, a small model goes on and on with the same call: several only for who asks for them.
        return Offer(tools, tools, True, request.parallel_tool_calls is True, param)
    return Offer(tools, (_chosen(choice, tools),), True, False, param)


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _offered(request: ChatCompletionRequest) -> tuple[Offered, ...]:
    found = [Offered(each.function, f"tools[{i}].function.parameters") for i, each in enumerate(request.tools or [])]
    found += [Offered(each, f"functions[{i}].parameters") for i, each in enumerate(request.functions or [])]
    names: set[str] = set()
    for each in found:
        if each.name in names:
            param = each.param.removesuffix("parameters") + "name"
            raise invalid(param, f"must be its tool's alone, but '{each.name}' is another's too")
        names.add(each.name)
        if too_deep(each.function.parameters):
            raise invalid(each.param, f"may be nested {MOST_LEVELS} levels deep, not more")
    return tuple(found)


def _check_nothing_chosen(request: ChatCompletionRequest) -> None:
    for name, tools in (("tool_choice", "tools"), ("function_call", "functions")):
        if getattr(request, name) not in (None, "none", "auto"):
            raise invalid(name, f"is only allowed when '{tools}' are specified")


def _chosen(choice: Any, tools: tuple[Offered, ...]) -> Offered:
    named = choice.function if isinstance(choice, NamedToolChoice) else choice
    param = "function_call" if isinstance(choice, NamedFunction) else "tool_choice"
    name: str = named.name
    for each in tools:
        if each.name == name:
            return each
    message = f"Invalid value for '{param}': there is no tool '{clip(name)}' among those of the request."
    raise EngineError(ErrorKind.INVALID_REQUEST, message, param=f"{param}", code="invalid_value")
