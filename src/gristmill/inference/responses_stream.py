"""From a completion, whole or as it comes, to a response and the events of its stream.

A whole one is translated as a stream of one piece: so both say the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference.answer import new_id, now
from gristmill.inference.responses_items import Events, OpenCall, OpenItem, OpenMessage, OpenReasoning
from gristmill.wire.chat import TokenLogprob, TopLogprob
from gristmill.wire.errors import ApiError
from gristmill.wire.response_events import (
    ResponseCompleted,
    ResponseCreated,
    ResponseErrorEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
)
from gristmill.wire.responses import (
    FailureCode,
    IncompleteDetails,
    ItemStatus,
    OutputItem,
    ReasoningEcho,
    ResponseFailure,
    ResponseInputTokens,
    ResponseObject,
    ResponseOutputTokens,
    ResponseRequest,
    ResponseUsage,
    TextConfig,
    TextFormat,
)
from gristmill.wire.tools import FunctionCallDelta, ToolCallDelta

ENCRYPTED = "reasoning.encrypted_content"


def response_of(request: ResponseRequest, completion: Completion) -> ResponseObject:
    stream = ResponseStream(request)
    stream.delta(_whole(completion.choices[0]))
    stream.finish(completion)
    return stream.response


class ResponseStream:
    """A ``bridge.Translator``. ``response`` is the response as it stands.

    Reasoning and message end where something else begins; calls stay open to the end, as servers may mix them.
    ``finished`` is told of the response at its end, unless it fails."""

    def __init__(
        self, request: ResponseRequest, finished: Callable[[ResponseObject], None] = lambda response: None
    ) -> None:
        self.response = begun(request)
        self._finished = finished
        self._as_summary = self.response.reasoning.summary is not None
        self._encrypted = ENCRYPTED in (request.include or ())
        self._number = itertools.count().__next__
        self._closed: dict[int, OutputItem] = {}
        self._said: OpenMessage | OpenReasoning | None = None
        self._calls: dict[int, OpenCall] = {}
        self._logprobs: list[TokenLogprob] = []

    def begin(self) -> Events:
        return [
            ResponseCreated(sequence_number=self._number(), response=self.response),
            ResponseInProgress(sequence_number=self._number(), response=self.response),
        ]

    def delta(self, delta: ChoiceDelta) -> Events:
        events: Events = []
        # Those of reasoning are the text's, too: what stands in an answer as a whole is not told apart.
        self._logprobs += map(_with_bytes, delta.logprobs or ())
        if delta.reasoning:
            events += self._think(delta.reasoning)
        if delta.text:
            events += self._say(delta.text)
        if delta.refusal:
            opened, message = self._message()
            events += [*opened, *message.refuse(delta.refusal)]
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def finish(self, completion: Completion) -> Events:
        reason = completion.choices[0].finish_reason
        incomplete = _INCOMPLETE.get(reason)
        events: Events = []
        if not self._begun() or (self._logprobs and isinstance(self._said, OpenMessage)):
            events += self._say("")
        last = self._begun() - 1
        for item in self._open():
            events += self._close(item, "incomplete" if incomplete is not None and item.index == last else "completed")
        self._said, self._calls = None, {}
        self.response = msgspec.structs.replace(
            self.response,
            model=completion.model,
            output=[item for _, item in sorted(self._closed.items())],
            usage=_usage(completion),
            status="completed" if incomplete is None else "incomplete",
            completed_at=now() if incomplete is None else None,
            incomplete_details=incomplete,
        )
        self._finished(self.response)
        if incomplete is not None:
            return [*events, ResponseIncomplete(sequence_number=self._number(), response=self.response)]
        return [*events, ResponseCompleted(sequence_number=self._number(), response=self.response)]

    def failed(self, error: ApiError) -> Events:
        """What was said so far stays said: it is in the response, as incomplete."""
        cut = {item.index: item.item("incomplete") for item in self._open()}
        output = [item for _, item in sorted((self._closed | cut).items())]
        self.response = msgspec.structs.replace(self.response, status="failed", output=output, error=failure(error))
        code = str(error.body.code or _failure_code(error.status))
        return [
            ResponseErrorEvent(
                sequence_number=self._number(), message=error.body.message, code=code, param=error.body.param
            ),
            ResponseFailed(sequence_number=self._number(), response=self.response),
        ]

    def _think(self, text: str) -> Events:
        if isinstance(self._said, OpenReasoning):
            return self._said.think(text)
        ended = self._end_said()
        self._said = said = OpenReasoning(
            self._number, self._begun(), as_summary=self._as_summary, encrypted=self._encrypted
        )
        return [*ended, *said.begin(), *said.think(text)]

    def _say(self, text: str) -> Events:
        opened, message = self._message()
        logprobs, self._logprobs = self._logprobs, []
        return [*opened, *message.say(text, logprobs)]

    def _message(self) -> tuple[Events, OpenMessage]:
        if isinstance(self._said, OpenMessage):
            return [], self._said
        ended = self._end_said()
        self._said = message = OpenMessage(self._number, self._begun())
        return [*ended, *message.begin()], message

    def _call(self, delta: ToolCallDelta) -> Events:
        events: Events = []
        call = self._calls.get(delta.index)
        given = delta.function or FunctionCallDelta()
        if call is None:
            events += self._end_said()
            call = OpenCall(self._number, self._begun(), delta.id or new_id("call_"), given.name or "")
            self._calls[delta.index] = call
            events += call.begin()
        if given.arguments:
            events += call.add(given.arguments)
        return events

    def _end_said(self) -> Events:
        said, self._said = self._said, None
        return [] if said is None else self._close(said)

    def _close(self, item: OpenItem, status: ItemStatus = "completed") -> Events:
        events = item.close(status)
        self._closed[item.index] = item.item(status)
        return events

    def _open(self) -> list[OpenItem]:
        said = [] if self._said is None else [self._said]
        return sorted([*said, *self._calls.values()], key=lambda item: item.index)

    def _begun(self) -> int:
        return len(self._closed) + len(self._open())


_INCOMPLETE = {
    "length": IncompleteDetails("max_output_tokens"),
    "content_filter": IncompleteDetails("content_filter"),
}


def _whole(choice: Choice) -> ChoiceDelta:
    calls = [
        ToolCallDelta(index, call.id, "function", FunctionCallDelta(call.function.name, call.function.arguments))
        for index, call in enumerate(choice.tool_calls)
    ]
    return ChoiceDelta(0, choice.text, choice.logprobs, tuple(calls), choice.reasoning or "", choice.refusal or "")


def begun(request: ResponseRequest) -> ResponseObject:
    """A response that has just begun."""
    text = request.text or TextConfig()
    reasoning = request.reasoning
    return ResponseObject(
        id=new_id("resp_"),
        created_at=now(),
        model=request.model,
        status="in_progress",
        output=[],
        tools=request.tools or [],
        tool_choice=request.tool_choice or "auto",
        parallel_tool_calls=request.parallel_tool_calls is not False,
        text=TextConfig(text.format or TextFormat("text"), text.verbosity),
        reasoning=ReasoningEcho(reasoning.effort, reasoning.summary or reasoning.generate_summary)
        if reasoning
        else ReasoningEcho(),
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        metadata=request.metadata or {},
        prompt_cache_key=request.prompt_cache_key,
        safety_identifier=request.safety_identifier,
        temperature=request.temperature,
        top_logprobs=request.top_logprobs or 0,
        top_p=request.top_p,
        user=request.user,
    )


def _with_bytes(token: TokenLogprob) -> TokenLogprob:
    """The API has no null for a token's bytes."""
    tops = [TopLogprob(top.token, top.logprob, _bytes(top)) for top in token.top_logprobs]
    return TokenLogprob(token.token, token.logprob, _bytes(token), tops)


def _bytes(token: TokenLogprob | TopLogprob) -> list[int]:
    return list(token.token.encode("utf-8", "replace")) if token.bytes is None else token.bytes


def _usage(completion: Completion) -> ResponseUsage:
    return ResponseUsage(
        completion.prompt_tokens,
        ResponseInputTokens(completion.cached_tokens or 0),
        completion.completion_tokens,
        ResponseOutputTokens(completion.reasoning_tokens or 0),
        completion.prompt_tokens + completion.completion_tokens,
    )


def failure(error: ApiError) -> ResponseFailure:
    """Why a response failed, as it says itself."""
    return ResponseFailure(_failure_code(error.status), error.body.message)


def _failure_code(status: int) -> FailureCode:
    if status == 429:
        return "rate_limit_exceeded"
    return "server_error" if status >= 500 else "invalid_prompt"
