"""Calls that are known whole, as a stream brings them: the name first, then the arguments. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.engines.protocol import ChoiceDelta
from gristmill.wire.tools import FunctionCallDelta, ToolCall, ToolCallDelta


def call_deltas(choice: int, number: int, call: ToolCall, pieces: list[str]) -> Iterator[ChoiceDelta]:
    """Call ``number`` of a choice; ``pieces`` are those of its arguments."""
    named = FunctionCallDelta(call.function.name, "")
    yield ChoiceDelta(choice, tool_calls=(ToolCallDelta(number, call.id, "function", named),))
    for piece in pieces:
        yield ChoiceDelta(choice, tool_calls=(ToolCallDelta(number, function=FunctionCallDelta(arguments=piece)),))
