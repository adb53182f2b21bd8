"""A server's chat answer, whole or as a stream, in the terms of ``engines.protocol``. Pure but for ids of calls."""

from __future__ import annotations

import msgspec

from gristmill.engines.errors import interrupted
from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference.answer import new_id
from gristmill.wire.chat import TokenLogprob
from gristmill.wire.chat_reading import ReadChat, ReadChoice, ReadMessage, ReadToolCall, ReadUsage
from gristmill.wire.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta

_decoder = msgspec.json.Decoder(ReadChat)
_NOTHING = ReadMessage()


def completion(body: bytes, model: str) -> Completion:
    """A whole answer. ``model`` is what was asked for, where the answer does not say. Raises EngineError."""
    reader = StreamReader(model)
    reader.add(body)
    return reader.completion()


class StreamReader:
    """Reads the first choice of a stream: bridged requests ask for one."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._arguments: list[list[str]] = []
        self._places: dict[int, int] = {}
        self._logprobs: list[TokenLogprob] | None = None
        self._reason: str | None = None
        self._stop: str | None = None
        self._usage = ReadUsage()

    def read(self, event: bytes) -> list[ChoiceDelta]:
        """What a server-sent event adds to the answer, if anything. Raises EngineError."""
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        return [] if not data or data == b"[DONE]" else self.add(data)

    def add(self, data: bytes) -> list[ChoiceDelta]:
        """The same for the JSON of an event, or of a whole answer."""
        try:
            chunk = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise interrupted(f"The server's answer cannot be read: {error}.") from None
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        deltas = [self._add(choice) for choice in chunk.choices or () if choice.index == 0]
        return [delta for delta in deltas if delta != _EMPTY]

    def _add(self, choice: ReadChoice) -> ChoiceDelta:
        said = choice.delta or choice.message or _NOTHING
        self._reason = choice.finish_reason or self._reason
        self._stop = choice.stop_reason if isinstance(choice.stop_reason, str) else self._stop
        delta = ChoiceDelta(
            0,
            said.text(),
            logprobs=(choice.logprobs.content or None) if choice.logprobs is not None else None,
            tool_calls=tuple(self._call(call) for call in said.tool_calls or ()),
            reasoning=said.thought(),
            refusal=said.refusal or "",
        )
        self._text.append(delta.text)
        self._refusal.append(delta.refusal)
        self._reasoning.append(delta.reasoning)
        if delta.logprobs is not None:
            self._logprobs = (self._logprobs or []) + delta.logprobs
        return delta

    def _call(self, call: ReadToolCall) -> ToolCallDelta:
        """The delta of a call, with the index that it has here: calls are counted in the order in which they begin."""
        name = call.function.name if call.function is not None else None
        given = call.function.arguments if call.function is not None else None
        arguments = given if given is None or isinstance(given, str) else msgspec.json.encode(given).decode()
        place = self._place(call, name)
        begins = place == len(self._calls)
        if begins:
            self._calls.append(ToolCall(call.id or new_id("call_"), FunctionCall(name or "", "")))
            self._arguments.append([])
        self._arguments[place].append(arguments or "")
        if not begins:
            return ToolCallDelta(place, function=FunctionCallDelta(arguments=arguments))
        return ToolCallDelta(place, self._calls[place].id, "function", FunctionCallDelta(name or "", arguments))

    def _place(self, call: ReadToolCall, name: str | None) -> int:
        new = len(self._calls)
        if call.index is not None:
            return self._places.setdefault(call.index, new)
        # Without an index, what has a name of its own is another call.
        return new if name or not new else new - 1

    def completion(self) -> Completion:
        """The whole of it, once the stream has ended. Raises EngineError where it has not come to an end."""
        if self._reason is None:
            raise interrupted("The server ended the answer in the middle (finish_reason: None).")
        for call, pieces in zip(self._calls, self._arguments, strict=True):
            call.function.arguments = "".join(pieces)
        usage = self._usage
        return Completion(
            model=self._model,
            choices=(
                Choice(
                    "".join(self._text),
                    self._reason,
                    self._logprobs,
                    tuple(self._calls),
                    "".join(self._reasoning) or None,
                    "".join(self._refusal) or None,
                    self._stop,
                ),
            ),
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
            reasoning_tokens=(
                usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
            ),
        )


_EMPTY = ChoiceDelta(0)
