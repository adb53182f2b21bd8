"""One choice of one request while it is being generated."""

from __future__ import annotations

import codecs
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.grammar import Matcher
from gristmill.engines.embedded.model_runner import Vocabulary
from gristmill.engines.embedded.pictures.picture import Picture
from gristmill.engines.embedded.sampler import GenerationState, Sampled, Sampling
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.tools.tool_reader import CallReader, Spoken
from gristmill.engines.protocol import Choice, ChoiceDelta
from gristmill.wire.chat import TokenLogprob, TopLogprob
from gristmill.wire.tools import ToolCall, ToolCallDelta


class ToolReading(NamedTuple):
    """How the calls in an answer are read. ``marks`` are special tokens that belong to their text, with their bytes."""

    reader: CallReader
    marks: dict[int, bytes]


class TextStream:
    """From token bytes to text as it becomes certain: whole characters, and nothing that may yet be a stop string.
    ``text`` is all that has been released. Once ``stop`` has been found it ends right before that string."""

    calls: tuple[ToolCall, ...] = ()

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.text = ""
        self.stop: str | None = None

    @property
    def stopped(self) -> bool:
        return self.stop is not None

    def push(self, piece: bytes) -> str:
        """Take the next token's bytes; returns the text they release, which may be empty."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """The output has ended: release what was held back."""
        released = self._release(self._decoder.decode(b"", True))
        if self.stopped:
            return released
        rest, self._held = self._held, ""
        self.text += rest
        return released + rest

    def take_calls(self) -> tuple[ToolCallDelta, ...]:
        return ()

    def _release(self, decoded: str) -> str:
        if self.stopped:
            return ""
        self._held += decoded
        ends = [(place, len(stop), stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if ends:
            keep, _, self.stop = min(ends)
        else:
            keep = len(self._held) - self._suspicious()
        released, self._held = self._held[:keep], self._held[keep:]
        self.text += released
        return released

    def _suspicious(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest


class CallingStream:
    """The same for an answer that may call tools: ``text`` is without the calls. Stop strings are those of the text;
    they do not cut a call in two."""

    def __init__(self, stops: list[str], reader: CallReader) -> None:
        self._whole = TextStream([])
        self._said = TextStream(stops)
        self._reader = reader
        self._deltas: list[ToolCallDelta] = []

    @property
    def text(self) -> str:
        return self._said.text

    @property
    def stop(self) -> str | None:
        return self._said.stop

    @property
    def stopped(self) -> bool:
        return self._said.stopped

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return () if self.stopped else self._reader.calls

    def push(self, piece: bytes) -> str:
        return self._take(self._reader.push(self._whole.push(piece)))

    def finish(self) -> str:
        released = self._take(self._reader.push(self._whole.finish())) + self._take(self._reader.finish())
        return released + self._said.finish()

    def take_calls(self) -> tuple[ToolCallDelta, ...]:
        """What of the calls has become certain since they were last taken, one delta a call."""
        taken: dict[int, ToolCallDelta] = {}
        for delta in self._deltas:
            if delta.index in taken:
                first, more = taken[delta.index].function, delta.function
                assert first is not None and more is not None
                first.arguments = (first.arguments or "") + (more.arguments or "")
            else:
                taken[delta.index] = delta
        self._deltas = []
        return tuple(taken.values())

    def _take(self, spoken: Spoken) -> str:
        released = self._said.push(spoken.text.encode()) if spoken.text else ""
        if spoken.calls and not self.stopped:
            # Nothing more is said once calls have begun.
            released += self._said.finish()
            self._deltas += spoken.calls
        return released


class Generation:
    """``finish_reason`` is None while it runs. ``generated`` includes the token that ended it."""

    def __init__(
        self,
        sequence: Sequence,
        sampling: Sampling,
        max_tokens: int,
        stops: list[str],
        matcher: Matcher | None,
        tools: ToolReading | None = None,
    ) -> None:
        """``matcher`` is None where the answer is free text; ``tools`` is None where it cannot call any."""
        self.sequence = sequence
        self.generated: list[int] = []
        self.finish_reason: str | None = None
        self.forced_tokens = 0
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._stream = TextStream(stops) if tools is None else CallingStream(stops, tools.reader)
        self._marks = {} if tools is None else tools.marks
        self._logprobs: list[TokenLogprob] = []
        self._told_text = 0
        self._told_logprobs = 0
        self._matcher = matcher
        self._allowed: NDArray[np.bool_] | None = None
        repeats = sampling.repetition_penalty != 1.0 and sampling.repetition_window is None
        #: All tokens of prompt and answer, where they are what the repetition penalty is for.
        self._seen = set(sequence.tokens) if repeats else None

    @property
    def choice(self) -> int:
        """Which of the request's choices it is."""
        return self._sampling.choice

    def news(self) -> ChoiceDelta | None:
        """What has become certain since it was last asked; None where nothing has."""
        text = self._stream.text[self._told_text :]
        logprobs = self._logprobs[self._told_logprobs :]
        calls = self._stream.take_calls()
        if not text and not logprobs and not calls:
            return None
        self._told_text += len(text)
        self._told_logprobs += len(logprobs)
        return ChoiceDelta(self.choice, text, logprobs or None, calls)

    def state(self) -> GenerationState:
        return GenerationState(self._sampling, self.generated, self._allowed, self._repeated())

    def _repeated(self) -> set[int]:
        if self._seen is not None:
            return self._seen
        window = self._sampling.repetition_window
        if self._sampling.repetition_penalty == 1.0 or window is None:
            return set()
        return set(self.sequence.tokens[-window:])

    def accept(self, sampled: Sampled, vocabulary: Vocabulary, ends: frozenset[int]) -> None:
        """Enter the sampled token. Raises EngineError where its grammar fails."""
        if sampled.token in ends:
            self.generated.append(sampled.token)
            self._end()
            return
        if sampled.logprob is not None:
            self._logprobs.append(_token_logprob(sampled, vocabulary))
        self._enter(sampled.token, vocabulary)
        self.jump_forward(vocabulary)

    def jump_forward(self, vocabulary: Vocabulary) -> None:
        """Enter the tokens that the grammar leaves no choice about, to be computed together in the next step. The
        answer ends when nothing can follow. Raises EngineError where the grammar fails.

        The idea is SGLang's (https://lmsys.org/blog/2024-02-05-compressed-fsm/). Where log-probabilities are wanted it
        goes token by token, because then every token needs logits.
        """
        if self._matcher is None:
            return
        if self._sampling.top_logprobs is None:
            for token in self._matcher.forced():
                if self.finish_reason is None:
                    self._enter(token, vocabulary)
                    self.forced_tokens += 1
        if self.finish_reason is None:
            if self._matcher.finished:
                self._end()
            else:
                self._allowed = self._matcher.allowed()

    def _enter(self, token: int, vocabulary: Vocabulary) -> None:
        self.generated.append(token)
        if self._seen is not None:
            self._seen.add(token)
        if self._matcher is not None:
            self._matcher.accept(token)
        self._stream.push(self._marks.get(token) or vocabulary.token_bytes[token])
        if self._stream.stopped:
            self.finish_reason = "stop"
        elif len(self.generated) >= self._max_tokens:
            self._stream.finish()
            # The last allowed token may have completed a stop string's text, or the grammar's, only now.
            complete = self._stream.stopped or (self._matcher is not None and self._matcher.finished)
            self.finish_reason = "stop" if complete else "length"
        else:
            self.sequence.tokens.append(token)

    def _end(self) -> None:
        self.finish_reason = "stop"
        self._stream.finish()

    def result(self) -> Choice:
        wanted = self._sampling.top_logprobs is not None
        calls = self._stream.calls
        reason = "tool_calls" if calls and self.finish_reason == "stop" else self.finish_reason or "stop"
        return Choice(self._stream.text, reason, self._logprobs if wanted else None, calls, stop=self._stream.stop)


class GenerationRequest(NamedTuple):
    """A request that is ready to be computed, one generation a choice. Those that a grammar forces whole have ended
    already."""

    id: int
    model: str
    stream: bool
    generations: list[Generation]
    #: Of its prompt; they must be there as long as its tokens are to be computed.
    pictures: list[Picture] = []  # noqa: RUF012 - never written to

    @property
    def interactive(self) -> bool:
        return self.generations[0].sequence.interactive


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
