"""The events of a streamed response, each under its name, in the order in which they come.

``response.created``, ``response.in_progress``; for each item of the output ``output_item.added``, the events of its
parts, ``output_item.done``; then ``response.completed``, ``.incomplete``, or ``error`` and ``response.failed``. What
is counted is counted from 0.
"""

from __future__ import annotations

import msgspec

from gristmill.wire.chat import TokenLogprob
from gristmill.wire.responses import (
    FunctionCallItem,
    OutputMessage,
    OutputRefusal,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseObject,
    SummaryText,
)


class _StreamEvent(msgspec.Struct, kw_only=True, tag_field="type"):
    sequence_number: int


class _OfResponse(_StreamEvent):
    response: ResponseObject


class ResponseCreated(_OfResponse, tag="response.created"):
    pass


class ResponseInProgress(_OfResponse, tag="response.in_progress"):
    pass


class ResponseCompleted(_OfResponse, tag="response.completed"):
    pass


class ResponseIncomplete(_OfResponse, tag="response.incomplete"):
    pass


class ResponseFailed(_OfResponse, tag="response.failed"):
    pass


class ResponseErrorEvent(_StreamEvent, tag="error"):
    message: str
    code: str
    param: str | None = None


class OutputItemAdded(_StreamEvent, tag="response.output_item.added"):
    output_index: int
    item: OutputMessage | ReasoningItem | FunctionCallItem


class OutputItemDone(_StreamEvent, tag="response.output_item.done"):
    output_index: int
    item: OutputMessage | ReasoningItem | FunctionCallItem


class _OfItem(_StreamEvent):
    item_id: str
    output_index: int


class _OfContent(_OfItem):
    content_index: int


class ContentPartAdded(_OfContent, tag="response.content_part.added"):
    part: OutputText | OutputRefusal | ReasoningText


class ContentPartDone(_OfContent, tag="response.content_part.done"):
    part: OutputText | OutputRefusal | ReasoningText


class OutputTextDelta(_OfContent, tag="response.output_text.delta"):
    delta: str
    logprobs: list[TokenLogprob] = []


class OutputTextDone(_OfContent, tag="response.output_text.done"):
    text: str
    logprobs: list[TokenLogprob] = []


class RefusalDelta(_OfContent, tag="response.refusal.delta"):
    delta: str


class RefusalDone(_OfContent, tag="response.refusal.done"):
    refusal: str


class ReasoningTextDelta(_OfContent, tag="response.reasoning_text.delta"):
    delta: str


class ReasoningTextDone(_OfContent, tag="response.reasoning_text.done"):
    text: str


class _OfSummary(_OfItem):
    summary_index: int


class SummaryPartAdded(_OfSummary, tag="response.reasoning_summary_part.added"):
    part: SummaryText


class SummaryPartDone(_OfSummary, tag="response.reasoning_summary_part.done"):
    part: SummaryText


class SummaryTextDelta(_OfSummary, tag="response.reasoning_summary_text.delta"):
    delta: str


class SummaryTextDone(_OfSummary, tag="response.reasoning_summary_text.done"):
    text: str


class ArgumentsDelta(_OfItem, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(_OfItem, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


ResponseEvent = (
    ResponseCreated
    | ResponseInProgress
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | ResponseErrorEvent
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | RefusalDelta
    | RefusalDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | SummaryPartAdded
    | SummaryPartDone
    | SummaryTextDelta
    | SummaryTextDone
    | ArgumentsDelta
    | ArgumentsDone
)
