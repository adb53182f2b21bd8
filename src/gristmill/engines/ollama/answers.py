"""From Ollama's answer to a completion, or to the reason why it is none. Pure.

HTTP 200 is not enough: Ollama answers 200 with ``done`` false and no counts when the model repeats one token, and 200
for a prompt whose beginning it has thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, interrupted
from gristmill.engines.ollama.failures import stream_failure
from gristmill.engines.ollama.forced_calls import called, read_calls
from gristmill.engines.ollama.translation import Asked
from gristmill.engines.ollama.wire import AnswerPart, Logprob, MessageCall
from gristmill.engines.protocol import Choice, ChoiceDelta, Completion, OnDelta
from gristmill.engines.tools.stream import call_deltas
from gristmill.wire.chat import TokenLogprob, TopLogprob
from gristmill.wire.tools import ToolCall

_NANOSECONDS = 1e9
_REASONS = {"stop": "stop", "length": "length"}
#: No tokenizer averages more characters a token over a long text; a prompt cut in half goes beyond it.
_MOST_CHARACTERS_PER_TOKEN = 10

_decoder = msgspec.json.Decoder(AnswerPart)


class Answered(NamedTuple):
    """``load_seconds`` is what Ollama spent until the model's runner was ready: milliseconds where it was loaded."""

    completion: Completion
    load_seconds: float


class PartCollector:
    """The parts of one answer: a single one, or the lines of a stream, given on as they come. Of calls only the first
    is taken unless there may be ``several``."""

    def __init__(self, on_delta: OnDelta | None = None, several: bool = False) -> None:
        self._several = several
        self._on_delta = on_delta
        self._text: list[str] = []
        self._thought: list[str] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[TokenLogprob] = []
        self._last: AnswerPart | None = None

    def add(self, line: bytes) -> None:
        """Raises EngineError for what is not JSON of the expected shape, and for an error within a stream."""
        try:
            part = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise interrupted(f"Ollama's answer cannot be read: {error}.") from None
        if part.error is not None:
            raise stream_failure(part.error)
        self._last = part
        logprobs = list(map(_token, part.logprobs or ()))
        self._logprobs += logprobs
        thought = part.message.thinking if part.message is not None else ""
        self._text.append(part.text)
        self._thought.append(thought)
        if part.text or thought or logprobs:
            self._tell(ChoiceDelta(0, part.text, logprobs or None, reasoning=thought))
        for each in part.message.tool_calls if part.message is not None else ():
            self._add_call(each)

    def _add_call(self, made: MessageCall) -> None:
        if self._calls and not self._several:
            return
        self._calls.append(called(made.function.name, made.function.arguments))
        for delta in call_deltas(0, len(self._calls) - 1, self._calls[-1], [self._calls[-1].function.arguments]):
            self._tell(delta)

    def _tell(self, delta: ChoiceDelta) -> None:
        if self._on_delta is not None:
            self._on_delta(delta)

    def finish(self, model: str, asked: Asked, num_ctx: int) -> Answered:
        """The whole answer. Raises EngineError where the server ended it without finishing it."""
        last = self._last
        if last is None or not last.done or last.prompt_eval_count is None:
            raise interrupted(
                "Ollama ended the answer in the middle (done is not true); it does that when the model repeats itself."
            )
        reason = _REASONS.get(last.done_reason or "")
        if reason is None:
            raise interrupted(f"Ollama ended the answer for no reason we know (done_reason: {last.done_reason!r}).")
        text = "".join(self._text)
        completion_tokens = last.eval_count or 0
        _check_context(asked, last.prompt_eval_count, completion_tokens, num_ctx)
        if asked.logprobs and text and not self._logprobs:
            raise interrupted("Ollama gave no log-probabilities, though asked.")
        calls = tuple(self._calls)
        if asked.forced and reason == "stop":
            text, calls = "", read_calls(text)
        choice = Choice(
            _structured(text, asked, reason),
            "tool_calls" if calls and reason == "stop" else reason,
            self._logprobs if asked.logprobs else None,
            calls,
            "".join(self._thought) or None,
        )
        completion = Completion(
            model=model,
            choices=(choice,),
            prompt_tokens=last.prompt_eval_count,
            completion_tokens=completion_tokens,
            cached_tokens=last.prompt_eval_cached_count,
        )
        return Answered(completion, last.load_duration / _NANOSECONDS)


def whole_deltas(choice: Choice) -> Iterator[ChoiceDelta]:
    """A choice that is known whole, as a stream brings it."""
    if choice.text or choice.reasoning or choice.logprobs or not choice.tool_calls:
        yield ChoiceDelta(0, choice.text, choice.logprobs, reasoning=choice.reasoning or "")
    for number, call in enumerate(choice.tool_calls):
        yield from call_deltas(0, number, call, [call.function.arguments])


def _token(token: Logprob) -> TokenLogprob:
    top = [TopLogprob(each.token, each.logprob, each.bytes) for each in token.top_logprobs]
    return TokenLogprob(token.token, token.logprob, token.bytes, top)


def _check_context(asked: Asked, prompt_tokens: int, completion_tokens: int, num_ctx: int) -> None:
    """Raises EngineError where the answer was given without the whole prompt in view."""
    if prompt_tokens + completion_tokens > num_ctx:
        raise _lost_context(
            f"The context of {num_ctx} tokens overflowed ({prompt_tokens} in the prompt, {completion_tokens} in the "
            "completion) and Ollama dropped the start of the prompt. Ask for fewer tokens, or raise num_ctx."
        )
    characters = len(asked.text)
    # A token is one byte or more, so a prompt of no more bytes than the context was never cut.
    if characters > prompt_tokens * _MOST_CHARACTERS_PER_TOKEN and len(asked.text.encode()) > num_ctx:
        raise _lost_context(
            f"Ollama counts {prompt_tokens} tokens in a prompt of {characters} characters: it dropped the start of it. "
            f"Its context holds {num_ctx} tokens: raise num_ctx."
        )


def _lost_context(message: str) -> EngineError:
    return EngineError(ErrorKind.INVALID_REQUEST, message, param="messages", code="context_length_exceeded")


def _structured(text: str, asked: Asked, reason: str) -> str:
    """The answer itself, where a structure was asked for. One that was cut by its token limit stays as it is."""
    if asked.structure.format is None or reason == "length":
        return text
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise interrupted("Ollama's answer is not the JSON it was asked for.") from None
    return str(value) if asked.structure.choice else text
