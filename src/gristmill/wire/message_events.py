"""The events of a streamed message, in the order in which they come: ``message_start``; for each block of content its
start, its deltas and its stop; ``message_delta`` with the reason and the usage; ``message_stop``. ``ping`` and
``error`` may come at any time. An event's name is its ``type``.
"""

from __future__ import annotations

import msgspec

from gristmill.wire.messages import (
    MessageAnswer,
    MessageErrorBody,
    MessageUsage,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)


class MessageStart(msgspec.Struct, tag="message_start"):
    """The message without content. Its usage is not known yet where the server behind tells it at the end."""

    message: MessageAnswer


class ContentBlockStart(msgspec.Struct, tag="content_block_start"):
    index: int
    content_block: ThinkingBlock | TextBlock | ToolUseBlock


class TextDelta(msgspec.Struct, tag="text_delta"):
    text: str


class InputJsonDelta(msgspec.Struct, tag="input_json_delta"):
    """The pieces of a call's input, put together, are its JSON."""

    partial_json: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta"):
    thinking: str


class ContentBlockDelta(msgspec.Struct, tag="content_block_delta"):
    index: int
    delta: TextDelta | InputJsonDelta | ThinkingDelta


class ContentBlockStop(msgspec.Struct, tag="content_block_stop"):
    index: int


class StopDelta(msgspec.Struct):
    stop_reason: StopReason
    stop_sequence: str | None = None


class MessageDelta(msgspec.Struct, tag="message_delta"):
    """``usage`` counts all of the message, and replaces what ``message_start`` said."""

    delta: StopDelta
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag="message_stop"):
    pass


class PingEvent(msgspec.Struct, tag="ping"):
    pass


class ErrorEvent(msgspec.Struct, tag="error"):
    error: MessageErrorBody
    request_id: str | None = None


MessageEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | PingEvent
    | ErrorEvent
)
