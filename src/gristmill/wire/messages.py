"""Anthropic's Messages API: request, answer, errors. The field's own names, as the official SDK has them.

What a request may hold is written down here and nothing else is taken: a field that asks for something this server has
not is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gristmill.wire.chat import TokenLimit, TopP

VERSION_HEADER = "anthropic-version"
#: All there are; the differences do not concern what is answered here.
VERSIONS = ("2026-10-21", "2023-06-01", "2023-01-01")
#: Strictly less than OpenAI's.
MessageTemperature = Annotated[float, msgspec.Meta(ge=0, le=1)]
TopK = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
#: An object whose values are left as they came.
JsonObject = dict[str, msgspec.Raw]


class CacheControl(msgspec.Struct, forbid_unknown_fields=True):
    """Taken, and asks for what happens anyway: whatever prompts share is computed once."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(msgspec.Struct, tag="text", forbid_unknown_fields=True, omit_defaults=True):
    text: str
    cache_control: CacheControl | None = None
    citations: list[JsonObject] | None = None


class Base64Source(msgspec.Struct, tag="base64", forbid_unknown_fields=True):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(msgspec.Struct, tag="url", forbid_unknown_fields=True):
    url: str


class ImageBlock(msgspec.Struct, tag="image", forbid_unknown_fields=True):
    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class ThinkingBlock(msgspec.Struct, tag="thinking", forbid_unknown_fields=True):
    """``signature`` is empty in our answers: nothing is signed."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(msgspec.Struct, tag="redacted_thinking", forbid_unknown_fields=True):
    """Anthropic's, encrypted: no other model can read it, and it is left out, as Anthropic does for its own."""

    data: str


class ToolUseBlock(msgspec.Struct, tag="tool_use", forbid_unknown_fields=True, omit_defaults=True):
    id: str
    name: str
    input: JsonObject
    cache_control: CacheControl | None = None
    caller: JsonObject | None = None


class ToolResultBlock(msgspec.Struct, tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


InputBlock = TextBlock | ImageBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock


class InputMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[InputBlock]


class ToolDefinition(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    input_schema: JsonObject
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    #: How finely the pieces of a call are streamed; they come as they are decoded.
    eager_input_streaming: bool | None = None


class AutoToolChoice(msgspec.Struct, tag="auto", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool = False


class AnyToolChoice(msgspec.Struct, tag="any", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool = False


class ToolChoiceByName(msgspec.Struct, tag="tool", forbid_unknown_fields=True):
    name: str
    disable_parallel_tool_use: bool = False


class NoToolChoice(msgspec.Struct, tag="none", forbid_unknown_fields=True):
    pass


class ThinkingEnabled(msgspec.Struct, tag="enabled", forbid_unknown_fields=True):
    """``budget_tokens`` is a target that Anthropic's models may not use up; here ``max_tokens`` alone is a limit."""

    budget_tokens: Annotated[int, msgspec.Meta(ge=1024, le=2**31 - 1)]
    display: Literal["summarized"] | None = None


class ThinkingAdaptive(msgspec.Struct, tag="adaptive", forbid_unknown_fields=True):
    display: Literal["summarized"] | None = None


class ThinkingDisabled(msgspec.Struct, tag="disabled", forbid_unknown_fields=True):
    pass


class JsonOutputFormat(msgspec.Struct, tag="json_schema", forbid_unknown_fields=True):
    schema: JsonObject


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutputFormat | None = None


class MessageMetadata(msgspec.Struct, forbid_unknown_fields=True):
    user_id: str | None = None


class MessagesRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/messages``, and the ``params`` of a request in a batch."""

    model: str
    messages: Annotated[list[InputMessage], msgspec.Meta(min_length=1, max_length=100_000)]
    max_tokens: TokenLimit
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    temperature: MessageTemperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: AutoToolChoice | AnyToolChoice | ToolChoiceByName | NoToolChoice | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None
    stream: bool | None = None
    metadata: MessageMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard"] | None = None
    cache_control: CacheControl | None = None


class CountTokensRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /v1/messages/count_tokens``."""

    model: str
    messages: Annotated[list[InputMessage], msgspec.Meta(min_length=1, max_length=100_000)]
    system: str | list[TextBlock] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: AutoToolChoice | AnyToolChoice | ToolChoiceByName | NoToolChoice | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None
    speed: Literal["standard"] | None = None
    cache_control: CacheControl | None = None


class TokensCount(msgspec.Struct):
    input_tokens: int


class ThinkingTokensDetails(msgspec.Struct):
    thinking_tokens: int


class MessageUsage(msgspec.Struct):
    """The prompt's tokens are all three inputs together. ``cache_read_input_tokens`` is null where the engine does not
    report it, and then among ``input_tokens``; writing a prefix is no account of its own here."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int = 0
    #: Left out where the engine does not report it.
    output_tokens_details: ThinkingTokensDetails | msgspec.UnsetType = msgspec.UNSET


StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class MessageAnswer(msgspec.Struct):
    """``stop_sequence`` is the one that was found, where the server behind tells."""

    id: str
    model: str
    content: list[ThinkingBlock | TextBlock | ToolUseBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    role: str = "assistant"
    type: str = "message"


class MessageErrorBody(msgspec.Struct):
    type: str
    message: str


class MessageErrorResponse(msgspec.Struct):
    error: MessageErrorBody
    request_id: str | None = None
    type: str = "error"
