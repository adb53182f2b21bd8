"""From a server's answer to a completion, or to the reason why it is none. Pure."""

from __future__ import annotations

import msgspec

from gristmill.engines.errors import interrupted, unsupported_parameter
from gristmill.engines.openai_compatible import wire
from gristmill.engines.openai_compatible.failures import stream_failure
from gristmill.engines.protocol import Choice, ChoiceDelta, Completion, OnDelta, Request
from gristmill.wire.chat import ChatCompletionRequest, TokenLogprob, TopLogprob

#: The reasons that end a text; any other ("abort", "error") means that the server gave up on it.
_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls", "function_call"})

_decoder = msgspec.json.Decoder(wire.AnswerBody)


class ChunkCollector:
    """The parts of one answer: a whole one, or the events of a stream, given on as they come."""

    def __init__(self, request: Request, on_delta: OnDelta | None = None) -> None:
        self._request = request
        self._on_delta = on_delta
        count = request.n or 1
        self._texts: list[list[str]] = [[] for _ in range(count)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(count)]
        self._reasons: list[str | None] = [None] * count
        self._usage: wire.Usage | None = None

    def add_line(self, line: bytes) -> None:
        """A line of a stream of server-sent events; comments and other fields than data say nothing here."""
        field, _, data = line.partition(b":")
        data = data.strip()
        if field == b"data" and data != b"[DONE]":
            self.add(data)

    def add(self, data: bytes) -> None:
        """Raises EngineError for what is not JSON of the expected shape, and for an error within a stream."""
        try:
            answer = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise interrupted(f"The server's answer cannot be read: {error}.") from None
        if answer.error is not None:
            raise stream_failure(answer.error)
        for choice in answer.choices:
            self._add_choice(choice)
        self._usage = answer.usage or self._usage

    def _add_choice(self, choice: wire.ChoicePart) -> None:
        if not 0 <= choice.index < len(self._texts):
            raise interrupted(f"The server answered with choice {choice.index}, of {len(self._texts)} asked for.")
        text = choice.content()
        if text:
            self._texts[choice.index].append(text)
            if self._on_delta is not None:
                self._on_delta(ChoiceDelta(choice.index, text))
        if choice.logprobs is not None:
            self._logprobs[choice.index] += _tokens(choice.logprobs, _top(self._request))
        self._reasons[choice.index] = choice.finish_reason or self._reasons[choice.index]

    def finish(self) -> Completion:
        """Raises EngineError where the server ended the answer without finishing it, or ignored a parameter."""
        if self._usage is None:
            raise interrupted("The server ended the answer in the middle: it gave no token counts.")
        if len(self._texts) > 1 and self._reasons[-1] is None and self._reasons[0] is not None:
            raise unsupported_parameter("n", "openai_compatible")
        details = self._usage.prompt_tokens_details
        return Completion(
            model=self._request.model,
            choices=tuple(map(self._choice, range(len(self._texts)))),
            prompt_tokens=self._usage.prompt_tokens,
            completion_tokens=self._usage.completion_tokens or 0,
            cached_tokens=None if details is None else details.cached_tokens,
        )

    def _choice(self, index: int) -> Choice:
        reason, text = self._reasons[index], "".join(self._texts[index])
        if reason not in _REASONS:
            raise interrupted(f"The server ended the answer in the middle (finish_reason: {reason!r}).")
        if not asks_logprobs(self._request):
            return Choice(text, reason)
        if text and not self._logprobs[index]:
            raise unsupported_parameter("logprobs", "openai_compatible")
        return Choice(text, reason, self._logprobs[index])


def asks_logprobs(request: Request) -> bool:
    if isinstance(request, ChatCompletionRequest):
        return bool(request.logprobs)
    return request.logprobs is not None


def _top(request: Request) -> int:
    """How many of the most likely tokens were asked for: servers may list more."""
    if isinstance(request, ChatCompletionRequest):
        return request.top_logprobs or 0
    return request.logprobs or 0


def _tokens(logprobs: wire.Logprobs, top: int) -> list[TokenLogprob]:
    if logprobs.content is not None:
        return [_token(token, top) for token in logprobs.content]
    names, values = logprobs.tokens or [], logprobs.token_logprobs or []
    tops: list[dict[str, float] | None] = logprobs.top_logprobs or [None] * len(names)
    return [
        TokenLogprob(name, value, None, _likeliest(likely or {}, top))
        for name, value, likely in zip(names, values, tops, strict=False)
        if value is not None
    ]


def _likeliest(likely: dict[str, float], top: int) -> list[TopLogprob]:
    """The chosen token is in it too, however unlikely it was."""
    ranked = sorted(likely.items(), key=lambda item: item[1], reverse=True)
    return [TopLogprob(token, logprob, None) for token, logprob in ranked[:top]]


def _token(token: wire.Token, top: int) -> TokenLogprob:
    likely = [TopLogprob(each.token, each.logprob, each.bytes) for each in token.top_logprobs[:top]]
    return TokenLogprob(token.token, token.logprob, token.bytes, likely)
