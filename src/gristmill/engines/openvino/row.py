"""One choice of one request while it is being generated."""

from __future__ import annotations

from gristmill.engines.openvino.prompt import Job
from gristmill.engines.openvino.sampler import RowState, Sampled
from gristmill.engines.openvino.sequence import Sequence
from gristmill.engines.openvino.text_stream import TextStream
from gristmill.engines.openvino.vocabulary import Vocabulary
from gristmill.engines.protocol import Choice
from gristmill.wire.chat import TokenLogprob, TopLogprob


class Row:
    """``finish_reason`` is None while it runs. ``generated`` includes the token that ended it."""

    def __init__(self, job: Job, choice: int) -> None:
        self.sequence = Sequence(job.prompt)
        self.choice = choice
        self.generated: list[int] = []
        self.finish_reason: str | None = None
        self._sampling = job.samplings[choice]
        self._max_tokens = job.max_tokens
        self._stream = TextStream(job.stops)
        self._logprobs: list[TokenLogprob] = []

    def state(self) -> RowState:
        return RowState(self._sampling, self.generated)

    def accept(self, sampled: Sampled, vocabulary: Vocabulary, ends: frozenset[int]) -> str:
        """Enter the sampled token; returns the text it released."""
        self.generated.append(sampled.token)
        if sampled.token in ends:
            self.finish_reason = "stop"
            return self._stream.finish()
        if sampled.logprob is not None:
            self._logprobs.append(_token_logprob(sampled, vocabulary))
        released = self._stream.push(vocabulary.token_bytes[sampled.token])
        if self._stream.stopped:
            self.finish_reason = "stop"
        elif len(self.generated) >= self._max_tokens:
            released += self._stream.finish()
            # The last allowed token may have completed a stop string's text only now.
            self.finish_reason = "stop" if self._stream.stopped else "length"
        else:
            self.sequence.tokens.append(sampled.token)
        return released

    def result(self) -> Choice:
        wanted = self._sampling.top_logprobs is not None
        return Choice(self._stream.text, self.finish_reason or "stop", self._logprobs if wanted else None)


def _token_logprob(sampled: Sampled, vocabulary: Vocabulary) -> TokenLogprob:
    text, raw = _spell(sampled.token, vocabulary)
    top = [TopLogprob(*_spell_top(token, logprob, vocabulary)) for token, logprob in sampled.top or []]
    return TokenLogprob(text, sampled.logprob or 0.0, raw, top)


def _spell_top(token: int, logprob: float, vocabulary: Vocabulary) -> tuple[str, float, list[int]]:
    text, raw = _spell(token, vocabulary)
    return text, logprob, raw


def _spell(token: int, vocabulary: Vocabulary) -> tuple[str, list[int]]:
    piece = vocabulary.token_bytes[token] or vocabulary.special_text(token)
    return piece.decode("utf-8", "replace"), list(piece)
