"""Responses: the request and the answer of ``POST /v1/responses``. Its events are in ``response_events.py``.

Requests are flat structs with the fields of all kinds of items and parts; which of them a kind needs, and which kinds
there are, is for ``inference/responses_input.py`` to say. Answers are tagged structs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gristmill.wire.chat import Temperature, TokenLimit, TokenLogprob, TopLogprobs, TopP
from gristmill.wire.tools import FunctionName

Verbosity = Literal["low", "medium", "high"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
#: Those of the API's codes that may occur here.
FailureCode = Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]


class InputPart(msgspec.Struct):
    """Of a message's content, of a function's output, or of a reasoning item."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: Any = None


class InputItem(msgspec.Struct):
    """``type`` may be left out of messages."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    summary: list[InputPart] | None = None
    encrypted_content: str | None = None

    def is_reference(self) -> bool:
        """Whether it only names an item of an earlier response."""
        return self.type == "item_reference" or (self.type is None and self.role is None)


class ResponseTool(msgspec.Struct):
    """``name`` and what follows belongs to functions; other tools are hosted by OpenAI."""

    type: str
    name: FunctionName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormat(msgspec.Struct, omit_defaults=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: Verbosity | None = None


class ReasoningConfig(msgspec.Struct):
    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseStreamOptions(msgspec.Struct):
    include_obfuscation: bool | None = None


class ResponseRequest(msgspec.Struct, omit_defaults=True):
    """The parameters of ``POST /v1/responses``. Parameters of chat completions besides, such as ``seed`` or ``stop``,
    are taken as there; what a server behind the ``openai_compatible`` engine knows, goes to it."""

    model: str
    input: str | Annotated[list[InputItem], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: list[str] | None = None
    max_output_tokens: TokenLimit | None = None
    max_tool_calls: int | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str
    #: Citations of hosted tools; there are none.
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class OutputRefusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    content: list[OutputText | OutputRefusal]
    status: ItemStatus
    role: str = "assistant"


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What the model wrote before its answer: in ``content``, or in ``summary`` where a summary was asked for."""

    id: str
    summary: list[SummaryText]
    content: list[ReasoningText]
    status: ItemStatus
    encrypted_content: str | None = None


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """``arguments`` are JSON in a string, as the model wrote them."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


OutputItem = OutputMessage | ReasoningItem | FunctionCallItem


class ResponseInputTokens(msgspec.Struct):
    #: 0 also where the engine does not report it: the API has no other way to say so.
    cached_tokens: int
    cache_write_tokens: int = 0


class ResponseOutputTokens(msgspec.Struct):
    #: As ``cached_tokens``.
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: ResponseInputTokens
    output_tokens: int
    output_tokens_details: ResponseOutputTokens
    total_tokens: int


class IncompleteDetails(msgspec.Struct):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseFailure(msgspec.Struct):
    """Why a response failed."""

    code: FailureCode
    message: str


class ReasoningEcho(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class ResponseObject(msgspec.Struct):
    """The answer. What it repeats of the request has its default where the request does not say."""

    id: str
    created_at: int
    model: str
    #: The first and the last are of responses in the background.
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    output: list[OutputItem]
    tools: list[ResponseTool]
    tool_choice: Any
    parallel_tool_calls: bool
    text: TextConfig
    reasoning: ReasoningEcho
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = {}
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    temperature: float | None = None
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    background: bool = False
    store: bool = False
    object: str = "response"


class DeletedResponse(msgspec.Struct):
    id: str
    deleted: bool = True
    object: str = "response"
