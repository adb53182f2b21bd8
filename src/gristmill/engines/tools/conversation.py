"""The messages of a chat with the calls in them: the deprecated forms made into today's, and results matched to their
calls. Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.nesting import MOST_LEVELS, too_deep
from gristmill.engines.structured_outputs import invalid
from gristmill.wire.chat import Message


class PastCall(NamedTuple):
    """A call that the assistant made, in an earlier message."""

    id: str
    name: str
    arguments: dict[str, Any]


class Turn(NamedTuple):
    """One message. ``calls`` are the assistant's; ``result_of`` is the call that a message of the role tool answers.
    ``message`` is what was sent, for everything else."""

    role: Literal["system", "user", "assistant", "tool"]
    message: Message
    calls: tuple[PastCall, ...] = ()
    result_of: PastCall | None = None


def turns(messages: list[Message]) -> list[Turn]:
    """Raises EngineError (invalid request) for calls whose arguments are no JSON object, and for results that do not
    say of which call they are."""
    found: list[Turn] = []
    made: dict[str, PastCall] = {}
    for index, message in enumerate(messages):
        turn = _turn(index, message, made)
        made |= {call.id: call for call in turn.calls}
        found.append(turn)
    return found


def has_calls(messages: list[Message]) -> bool:
    return any(message.tool_calls or message.function_call for message in messages)


def _turn(index: int, message: Message, made: dict[str, PastCall]) -> Turn:
    param = f"messages[{index}]"
    match message.role:
        case "assistant":
            return Turn("assistant", message, _calls(message, param))
        case "tool":
            if not message.tool_call_id:
                raise EngineError(
                    ErrorKind.INVALID_REQUEST, f"Missing required parameter: '{param}.tool_call_id'.",
                    param=f"{param}.tool_call_id", code="missing_required_parameter",
                )  # fmt: skip
            return Turn("tool", message, result_of=_call(message.tool_call_id, message, made))
        case "function":
            return Turn("tool", message, result_of=_call(_legacy_id(message.name or ""), message, made))
        case "system" | "developer":
            # Models know "system" only; OpenAI's "developer" is its newer name.
            return Turn("system", message)
        case "user":
            return Turn("user", message)


def _calls(message: Message, param: str) -> tuple[PastCall, ...]:
    calls = [
        PastCall(call.id, call.function.name, _arguments(call.function.arguments, f"{param}.tool_calls[{i}].function"))
        for i, call in enumerate(message.tool_calls or [])
    ]
    if message.function_call is not None:
        name = message.function_call.name
        arguments = _arguments(message.function_call.arguments, f"{param}.function_call")
        calls.append(PastCall(_legacy_id(name), name, arguments))
    return tuple(calls)


def _legacy_id(name: str) -> str:
    """The deprecated calls have none; the result names the function."""
    return f"call_{name}"


def _arguments(text: str, param: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise invalid(f"{param}.arguments", "must be the JSON text of an object") from None
    if too_deep(found):
        raise invalid(f"{param}.arguments", f"may be nested {MOST_LEVELS} levels deep, not more")
    return found


def _call(call_id: str, message: Message, made: dict[str, PastCall]) -> PastCall:
    """The call that a result is of; histories that are cut off may have lost it."""
    return made.get(call_id) or PastCall(call_id, message.name or "", {})
