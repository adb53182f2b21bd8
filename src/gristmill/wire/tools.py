"""Tool calls, whole and as a stream brings them."""

from __future__ import annotations

import msgspec


class FunctionCall(msgspec.Struct):
    """``arguments`` are JSON in a string, as the model wrote them."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    function: FunctionCall
    type: str = "function"


class FunctionCallDelta(msgspec.Struct, omit_defaults=True):
    """The name comes whole and once; the pieces of ``arguments``, put together, are the arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, omit_defaults=True):
    """Only the first delta of a call has its ``id`` and ``type``; ``index`` counts the calls of a choice from 0."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionCallDelta | None = None
