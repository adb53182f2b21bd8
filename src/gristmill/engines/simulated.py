"""The simulated engine: deterministic text, a clock and a prefix cache, but no model.

For tests and capacity planning: it answers from a hash of the prompt, takes as long as it is told a real engine
would, reuses prefixes the way a slot-based server does, and fails on demand.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from pathlib import Path

import msgspec

from gristmill.common_prefix import common_prefix
from gristmill.engines.errors import (
    EngineError,
    ErrorKind,
    context_length_exceeded,
    crashed,
    input_too_long,
    too_many_dimensions,
    unknown_model,
)
from gristmill.engines.options import parse_options
from gristmill.engines.parameters import check_parameters
from gristmill.engines.protocol import (
    Capabilities,
    Choice,
    Completion,
    EmbeddingRequest,
    Embeddings,
    LabelRequest,
    LabelScores,
    OnDelta,
    Request,
)
from gristmill.engines.simulated_answers import (
    EMBEDDING_SIZE,
    TOKEN_CHARS,
    called,
    calling_choice,
    chat_text,
    deltas,
    digest,
    json_choice,
    numbers_behind,
    prompt_text,
    text_choice,
    vector_of,
    words_of,
)
from gristmill.engines.structured_outputs import constraint_of
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, SCORE

_DEFAULT_OUTPUT_TOKENS = 16

_PARAMETERS = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n", "stop", "frequency_penalty",
     "presence_penalty", "response_format", "tools", "tool_choice", "functions", "function_call"}
)  # fmt: skip


class SimulatedOptions(msgspec.Struct, frozen=True):
    """Times in seconds, speeds in tokens a second (0: no time at all)."""

    #: How many requests may usefully be in flight.
    slots: int = 64
    latency: float = 0.0
    prefill_speed: float = 0.0
    decode_speed: float = 0.0
    context_length: int = 131_072
    #: Prompts the prefix cache remembers; 0 switches it off.
    cached_prompts: int = 8
    #: Share of requests that fail with ``failure_kind``, by chance.
    failure_rate: float = 0.0
    failure_kind: ErrorKind = ErrorKind.INTERRUPTED
    #: A request whose prompt contains this text always fails with ``failure_kind``.
    fail_on: str = ""
    #: One whose prompt contains this text crashes the server that is simulated: all that it is answering breaks off.
    crash_on: str = ""
    #: Label scores go with the number, from 0 to 1, that stands behind the last occurrence of this text in the prompt.
    scored_by: str = ""
    #: Of two labels, the one that sorts first goes with the number behind the last occurrence but one of this text, the
    #: other with that behind the last: the larger number is the more probable.
    compared_by: str = ""
    #: A file that gets one line (the end of the prompt) for each answered request, to count them from outside.
    journal: str = ""
    #: One that gets such a line for each request as it comes, answered or not.
    asked_journal: str = ""

    @staticmethod
    def parse(options: dict[str, str]) -> SimulatedOptions:
        return parse_options(SimulatedOptions, options, "simulated")


class SimulatedEngine:
    name = "simulated"

    def __init__(self, options: SimulatedOptions, model: str = "simulated") -> None:
        self._options = options
        self._model = model
        self._cache = _PromptCache(options.cached_prompts)
        self._journal = self._asked_journal = -1
        #: What waits for its time to pass, where a crash may come before.
        self._in_flight: set[asyncio.Future[None]] = set()
        self.models = (model,)
        self.capabilities = Capabilities(
            slots=options.slots,
            parameters=_PARAMETERS,
            context_length=options.context_length,
            endpoints=frozenset({CHAT, COMPLETIONS, SCORE, EMBEDDINGS}),
        )

    async def fingerprint(self) -> str:
        return f"simulated {self._model}"

    async def start(self) -> None:
        self._journal = _opened(self._options.journal)
        self._asked_journal = _opened(self._options.asked_journal)

    async def stop(self) -> None:
        for journal in (self._journal, self._asked_journal):
            if journal >= 0:
                os.close(journal)
        self._journal = self._asked_journal = -1

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        if request.model != self._model:
            raise unknown_model(request.model, self.models)
        check_parameters(request, self.capabilities, self.name)
        prompt = prompt_text(request)
        _note(self._asked_journal, prompt)
        prompt_tokens = _count(prompt)
        limit = request.token_limit() or _DEFAULT_OUTPUT_TOKENS
        if prompt_tokens >= self._options.context_length:
            raise context_length_exceeded(prompt_tokens, limit, self._options.context_length)
        self._fail_on_demand(prompt)
        cached_tokens = self._cache.reuse(prompt) // TOKEN_CHARS
        constraint = constraint_of(request)
        tool = called(request)
        if tool is not None:
            choices = tuple(calling_choice(prompt, index, tool) for index in range(request.n or 1))
        elif constraint is not None:
            choices = tuple(json_choice(prompt, index, limit, constraint) for index in range(request.n or 1))
        else:
            choices = tuple(text_choice(prompt, index, limit, request.stop) for index in range(request.n or 1))
        completion_tokens = sum(len(words_of(choice)) for choice in choices)
        await self._pass_time(prompt_tokens - cached_tokens, completion_tokens, choices, on_delta)
        _note(self._journal, prompt)
        return Completion(self._model, choices, prompt_tokens, completion_tokens, cached_tokens)

    async def score(self, request: LabelRequest, *, interactive: bool = False) -> LabelScores:
        """Probabilities drawn by a hash of the prompt: the same prompt gets the same scores."""
        if request.model != self._model:
            raise unknown_model(request.model, self.models)
        prompt = request.prompt if isinstance(request.prompt, str) else chat_text(request.prompt)
        _note(self._asked_journal, prompt)
        self._fail_on_demand(prompt)
        cached_tokens = self._cache.reuse(prompt) // TOKEN_CHARS
        await self._pass_time(_count(prompt) - cached_tokens, 0, (), None)
        _note(self._journal, prompt)
        drawn = digest(prompt).hex()
        weights: list[float] = [1 + digest(f"{label}\0{drawn}")[0] for label in request.labels]
        compared = numbers_behind(self._options.compared_by, prompt) if len(request.labels) == 2 else []
        if len(compared) > 1:
            first, second = compared[-2:]
            numbers = [first, second] if str(request.labels[0]) < str(request.labels[1]) else [second, first]
            weights = [weight * math.exp(20 * number) for weight, number in zip(weights, numbers, strict=True)]
        elif numbers := numbers_behind(self._options.scored_by, prompt):
            places = len(weights) - 1 or 1
            near = (math.exp(-30 * (place / places - numbers[-1]) ** 2) for place in range(len(weights)))
            weights = [weight * each for weight, each in zip(weights, near, strict=True)]
        logprobs = tuple(math.log(weight / (sum(weights) + 1)) for weight in weights)
        return LabelScores(self._model, logprobs, _count(prompt), cached_tokens)

    async def embed(self, request: EmbeddingRequest, *, interactive: bool = False) -> Embeddings:
        """Vectors from hashes of the words: texts that share words are near each other."""
        if request.model != self._model:
            raise unknown_model(request.model, self.models)
        if request.dimensions is not None and request.dimensions > EMBEDDING_SIZE:
            raise too_many_dimensions(request.dimensions, EMBEDDING_SIZE)
        texts = [each if isinstance(each, str) else " ".join(map(str, each)) for each in request.inputs]
        counts = [_count(text) for text in texts]
        if max(counts) > self._options.context_length:
            raise input_too_long(self._options.context_length, max(counts))
        for text in texts:
            _note(self._asked_journal, text)
            self._fail_on_demand(text)
        await self._pass_time(sum(counts), 0, (), None)
        for text in texts:
            _note(self._journal, text)
        vectors = [vector_of(text, request.dimensions or EMBEDDING_SIZE) for text in texts]
        return Embeddings(self._model, vectors, sum(counts))

    def _fail_on_demand(self, prompt: str) -> None:
        options = self._options
        marked = bool(options.fail_on) and options.fail_on in prompt
        if marked or (options.failure_rate and random.random() < options.failure_rate):
            kind = options.failure_kind
            code = "simulated_failure" if kind is ErrorKind.INVALID_REQUEST else None
            raise EngineError(kind, f"A simulated failure ({kind.value}).", code=code)
        if options.crash_on and options.crash_on in prompt:
            for other in self._in_flight:
                other.cancel()
            raise _crash()

    async def _pass_time(
        self, new_tokens: int, completion_tokens: int, choices: tuple[Choice, ...], on_delta: OnDelta | None
    ) -> None:
        options = self._options
        prefill, decode = options.latency, 0.0
        if options.prefill_speed:
            prefill += new_tokens / options.prefill_speed
        if options.decode_speed:
            decode += completion_tokens / options.decode_speed
        if on_delta is None:
            if prefill + decode > 0:
                await self._sleep(prefill + decode)
            return
        await self._sleep(prefill)
        for index, choice in enumerate(choices):
            pieces = list(deltas(index, choice))
            for delta in pieces:
                await self._sleep(decode / len(pieces) / len(choices))
                on_delta(delta)

    async def _sleep(self, seconds: float) -> None:
        if not self._options.crash_on:
            await asyncio.sleep(seconds)
            return
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight.add(cut)
        try:
            await asyncio.wait((cut,), timeout=seconds)
        finally:
            self._in_flight.discard(cut)
        if cut.done():
            raise _crash()


class _PromptCache:
    """The last few prompts, as a slot-based server keeps them: a prompt reuses what it shares with the nearest."""

    def __init__(self, size: int) -> None:
        self._size = size
        #: The latest last. (A dict would hash every prompt.)
        self._prompts: list[str] = []
        self._shared = 0

    def reuse(self, prompt: str) -> int:
        """Characters of ``prompt`` that were seen before, at its beginning; remembers the prompt."""
        if self._size == 0:
            return 0
        best, nearest = 0, None
        for index in range(len(self._prompts) - 1, -1, -1):
            known = self._prompts[index]
            if best and known[:best] != prompt[:best]:
                continue
            shared = common_prefix(known, prompt, self._shared)
            if shared > best:
                best, nearest = shared, index
            if best > len(prompt) * 9 // 10:
                break
        if nearest is not None and best * 2 > len(self._prompts[nearest]):
            del self._prompts[nearest]
        elif len(self._prompts) >= self._size:
            del self._prompts[0]
        self._prompts.append(prompt)
        self._shared = best
        # The last token is always computed, as it gives the first output token.
        return max(min(best, len(prompt) - TOKEN_CHARS), 0)


def _crash() -> EngineError:
    return crashed("the simulated server", "The simulated server crashed while it was answering.")


def _opened(journal: str) -> int:
    return os.open(Path(journal), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if journal else -1


def _note(journal: int, prompt: str) -> None:
    if journal >= 0:
        os.write(journal, prompt[-80:].replace("\n", " ").encode() + b"\n")


def _count(text: str) -> int:
    return max(1, len(text) // TOKEN_CHARS)
