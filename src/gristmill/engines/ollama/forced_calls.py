"""Calls that a request insists on. Ollama has no such choice, but a grammar: so the answer is asked for as JSON that
names a tool and its arguments, and read as calls. Pure.

The tools are told in the system message, not in ``tools``: with those, Ollama looks for calls in the answer itself, by
its model's template, which the JSON asked for here is none of.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gristmill.engines.errors import interrupted
from gristmill.engines.ollama.wire import ChatMessage
from gristmill.engines.tools.offer import Offer, new_call_id
from gristmill.wire.tools import FunctionCall, ToolCall

#: Of one answer.
_MOST_CALLS = 16
_INTRODUCTION = """You can call functions. These are there, one a line, each with the JSON schema of its parameters:
{tools}

Answer with {what} and nothing else: {form}"""
_ONE = '{"name": "the function\'s name", "arguments": {"parameter": "value"}}'


class _Called(msgspec.Struct):
    name: str
    arguments: dict[str, Any]


_decoder = msgspec.json.Decoder(list[_Called] | _Called)


def forced_format(offer: Offer) -> dict[str, Any]:
    """The schema of an answer that calls what may be called. Raises EngineError for schemas that no engine can take."""
    choices, definitions = [], {}
    for number, each in enumerate(offer.callable):
        name = f"arguments{number}"
        definitions[name] = _moved(each.arguments(), f"#/$defs/{name}")
        properties = {"name": {"const": each.name}, "arguments": {"$ref": f"#/$defs/{name}"}}
        choices.append(
            {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
        )
    one: dict[str, Any] = choices[0] if len(choices) == 1 else {"anyOf": choices}
    if offer.several:
        one = {"type": "array", "items": one, "minItems": 1, "maxItems": _MOST_CALLS}
    return one | {"$defs": definitions}


def told(messages: list[ChatMessage], offer: Offer) -> list[ChatMessage]:
    """The messages with the tools in the first, before whatever else it says."""
    tools = "\n".join(json.dumps(each.description(), ensure_ascii=False) for each in offer.tools)
    what, form = ("a JSON list of calls", f"[{_ONE}]") if offer.several else ("the JSON of one call", _ONE)
    text = _INTRODUCTION.format(tools=tools, what=what, form=form)
    if messages[0].role == "system":
        first = msgspec.structs.replace(messages[0], content=f"{text}\n\n{messages[0].content}")
        return [first, *messages[1:]]
    return [ChatMessage("system", text), *messages]


def read_calls(text: str) -> tuple[ToolCall, ...]:
    """Raises EngineError (interrupted) for an answer that is not what its grammar makes."""
    try:
        found = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise interrupted("Ollama's answer is not the call it was asked for.") from None
    calls = found if isinstance(found, list) else [found]
    return tuple(called(each.name, each.arguments) for each in calls)


def called(name: str, arguments: dict[str, Any], call_id: str | None = None) -> ToolCall:
    return ToolCall(call_id or new_call_id(), FunctionCall(name, json.dumps(arguments, ensure_ascii=False)))


def _moved(schema: Any, place: str) -> Any:
    """The schema as it is to stand at ``place`` in another: references to its own parts go there."""
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference.startswith("#"):
                node["$ref"] = place + reference[1:].rstrip("/")
            stack += node.values()
        elif isinstance(node, list):
            stack += node
    return schema
