"""From Ollama's answer to a completion, or to the reason why it is none. Pure.

HTTP 200 is not enough: Ollama answers 200 with ``done`` false and no counts when the model repeats one token, and 200
for a prompt whose beginning it has thrown away.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, interrupted
from gristmill.engines.ollama.failures import stream_failure
from gristmill.engines.ollama.translation import Asked
from gristmill.engines.ollama.wire import AnswerPart, Logprob
from gristmill.engines.protocol import Choice, ChoiceDelta, Completion, OnDelta
from gristmill.wire.chat import TokenLogprob, TopLogprob

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
    """The parts of one answer: a single one, or the lines of a stream, given on as they come."""

    def __init__(self, on_delta: OnDelta | None = None) -> None:
        self._on_delta = on_delta
        self._text: list[str] = []
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
        if part.text:
            self._text.append(part.text)
            if self._on_delta is not None:
                self._on_delta(ChoiceDelta(0, part.text))
        self._logprobs += map(_token, part.logprobs or ())
        self._last = part

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
        completion = Completion(
            model=model,
            choices=(Choice(_structured(text, asked, reason), reason, self._logprobs if asked.logprobs else None),),
            prompt_tokens=last.prompt_eval_count,
            completion_tokens=completion_tokens,
            cached_tokens=last.prompt_eval_cached_count,
        )
        return Answered(completion, last.load_duration / _NANOSECONDS)


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
