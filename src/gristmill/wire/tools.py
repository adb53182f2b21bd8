"""Tools: what a request offers, and calls of them, whole and as a stream brings them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

# Its end in words that JSON Schema and Python read alike: for Python "$" also stands before a last line break.
FunctionName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])")]


class FunctionDefinition(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """``parameters`` are a JSON schema of an object; without them, the function takes none."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class NamedToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice
#: Of the deprecated ``functions``.
FunctionChoice = Literal["none", "auto"] | NamedFunction


class FunctionCall(msgspec.Struct):
    """``arguments`` are JSON in a string, as the model wrote them."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class FunctionCallDelta(msgspec.Struct, omit_defaults=True):
    """The name comes whole and once; the pieces of ``arguments``, put together, are the arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, omit_defaults=True):
    """Only the first delta of a call has its ``id`` and ``type``; ``index`` counts the calls of a choice from 0."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta | None = None
