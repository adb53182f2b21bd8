"""A completion as a message of Anthropic's API, whole or as the events of a stream. Pure but for the message's id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference.answer import new_id
from gristmill.inference.messages_errors import error_body
from gristmill.wire.errors import ApiError, server_error
from gristmill.wire.message_events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ErrorEvent,
    InputJsonDelta,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    PingEvent,
    StopDelta,
    TextDelta,
    ThinkingDelta,
)
from gristmill.wire.messages import (
    JsonObject,
    MessageAnswer,
    MessageUsage,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ThinkingTokensDetails,
    ToolUseBlock,
)
from gristmill.wire.tools import ToolCall, ToolCallDelta

_input_decoder = msgspec.json.Decoder(JsonObject)
_STOP_REASONS: dict[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message(completion: Completion) -> MessageAnswer:
    """Raises ApiError where the model called a tool with something that is no JSON object."""
    (choice,) = completion.choices
    content: list[ThinkingBlock | TextBlock | ToolUseBlock] = []
    if choice.reasoning:
        content.append(ThinkingBlock(choice.reasoning))
    if text := choice.text + (choice.refusal or ""):
        content.append(TextBlock(text))
    content += [ToolUseBlock(call.id, call.function.name, _input(call)) for call in choice.tool_calls]
    reason, found = _stopped(choice)
    return MessageAnswer(new_id("msg_"), completion.model, content, reason, found, usage(completion))


def usage(completion: Completion) -> MessageUsage:
    counted = MessageUsage(
        input_tokens=completion.prompt_tokens - (completion.cached_tokens or 0),
        output_tokens=completion.completion_tokens,
        cache_read_input_tokens=completion.cached_tokens,
    )
    if completion.reasoning_tokens is not None:
        counted.output_tokens_details = ThinkingTokensDetails(completion.reasoning_tokens)
    return counted


def _stopped(choice: Choice) -> tuple[StopReason, str | None]:
    if choice.refusal:
        return "refusal", None
    if choice.stop is not None:
        return "stop_sequence", choice.stop
    if choice.tool_calls and choice.finish_reason == "stop":
        # So servers end a call that was asked for by name.
        return "tool_use", None
    return _STOP_REASONS.get(choice.finish_reason, "end_turn"), None


def _input(call: ToolCall) -> JsonObject:
    try:
        return _input_decoder.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        message = f"The model called the tool '{call.function.name[:200]}' with arguments that are no JSON object."
        raise server_error(500, message, "invalid_tool_arguments") from None


class MessageTranslator:
    """The events of one message. A block is open until another begins: thinking, text, or one of the calls."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._blocks = 0
        #: What the open block is: a type, or the number of a call.
        self._open: str | int | None = None
        self._calls: set[int] = set()
        self._mixed_up = False

    def begin(self) -> list[MessageEvent]:
        blank = MessageAnswer(new_id("msg_"), self._model, [], None, None, MessageUsage(0, 0))
        return [MessageStart(blank), PingEvent()]

    def delta(self, delta: ChoiceDelta) -> list[MessageEvent]:
        return list(self._events(delta))

    def finish(self, completion: Completion) -> list[MessageEvent]:
        (choice,) = completion.choices
        reason, found = _stopped(choice)
        if self._mixed_up:
            # Blocks come one after another, so that they could not be told.
            return self.failed(server_error(500, "The pieces of the model's tool calls came mixed up."))
        return [*self._close(), MessageDelta(StopDelta(reason, found), usage(completion)), MessageStop()]

    def failed(self, error: ApiError) -> list[MessageEvent]:
        return [ErrorEvent(error_body(error.status, error.body.message, error.body.param))]

    def _events(self, delta: ChoiceDelta) -> Iterator[MessageEvent]:
        if delta.reasoning:
            yield from self._block("thinking", ThinkingBlock(""))
            yield ContentBlockDelta(self._blocks - 1, ThinkingDelta(delta.reasoning))
        if text := delta.text + delta.refusal:
            yield from self._block("text", TextBlock(""))
            yield ContentBlockDelta(self._blocks - 1, TextDelta(text))
        for call in delta.tool_calls:
            yield from self._call(call)

    def _call(self, call: ToolCallDelta) -> Iterator[MessageEvent]:
        if call.index in self._calls and self._open != call.index:
            self._mixed_up = True
            return
        self._calls.add(call.index)
        name = (call.function.name if call.function else None) or ""
        yield from self._block(call.index, ToolUseBlock(call.id or new_id("toolu_"), name, {}))
        if call.function and call.function.arguments:
            yield ContentBlockDelta(self._blocks - 1, InputJsonDelta(call.function.arguments))

    def _block(self, which: str | int, blank: ThinkingBlock | TextBlock | ToolUseBlock) -> Iterator[MessageEvent]:
        if self._open == which:
            return
        yield from self._close()
        self._open = which
        self._blocks += 1
        yield ContentBlockStart(self._blocks - 1, blank)

    def _close(self) -> Sequence[MessageEvent]:
        if self._open is None:
            return []
        self._open = None
        return [ContentBlockStop(self._blocks - 1)]
