"""From a request to what the scheduler and the sampler need, or an error naming the parameter."""

from __future__ import annotations

import functools
import secrets
from typing import NamedTuple

from gristmill.engines.openvino.frames import SubmitScore
from gristmill.engines.openvino.grammar import Grammar, Grammars
from gristmill.engines.openvino.label_trie import LabelTrie
from gristmill.engines.openvino.prompt_tokens import PromptTokens
from gristmill.engines.openvino.sampler import Sampling
from gristmill.engines.openvino.scoring import ScoreJob
from gristmill.engines.openvino.vocabulary import Vocabulary
from gristmill.engines.protocol import EngineError, ErrorKind, Request, context_length_exceeded
from gristmill.engines.structured_outputs import constraint_of
from gristmill.wire.chat import ChatCompletionRequest


class Job(NamedTuple):
    """``samplings`` has one entry a choice. ``max_tokens`` never exceeds what is left of the context. ``grammar`` is
    None where the answer is free text."""

    prompt: list[int]
    max_tokens: int
    stops: list[str]
    samplings: list[Sampling]
    grammar: Grammar | None


class JobReader:
    """Reads requests for one model: its vocabulary, template and context length (in tokens)."""

    def __init__(self, vocabulary: Vocabulary, grammars: Grammars, context_length: int) -> None:
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._context_length = context_length
        # The rows of a batch ask for the same labels, and a call of the tokenizer costs half a millisecond.
        self._label_tokens = functools.lru_cache(4096)(functools.partial(vocabulary.encode, special_tokens=False))
        self._prompts = PromptTokens(vocabulary)

    def read(self, request: Request) -> Job:
        """Raises EngineError (invalid request)."""
        prompt = self._prompts.of_request(request)
        limit = request.token_limit()
        room = self._context_length - len(prompt)
        if room < (limit or 1):
            error = context_length_exceeded(len(prompt), limit or 1, self._context_length)
            if not isinstance(request, ChatCompletionRequest):
                error.param = "prompt"
            raise error
        stop = request.stop or []
        return Job(
            prompt, limit or room, [text for text in ([stop] if isinstance(stop, str) else stop) if text],
            self._samplings(request), self._grammar(request),
        )  # fmt: skip

    def read_score(self, submit: SubmitScore) -> ScoreJob:
        """Raises EngineError (invalid request)."""
        if submit.chat is not None:
            param = "messages"
            prompt = self._prompts.of_messages(submit.chat, submit.add_generation_prompt, submit.continue_final_message)
        else:
            param = "query"
            prompt = self._prompts.of_text(submit.text or "", param)
        size = self._vocabulary.size
        if any(label >= size for label in submit.label_ids or []):
            raise _invalid("label_token_ids", f"A label's token id must be from 0 to {size - 1}.")
        labels = [[label] for label in submit.label_ids or []]
        labels += [self._label_tokens(label) for label in submit.labels or []]
        try:
            job = ScoreJob(prompt, LabelTrie(labels))
        except ValueError as error:
            raise _invalid("labels", f"The labels cannot be told apart: {error}.") from None
        if job.longest > self._context_length:
            refusal = context_length_exceeded(len(prompt), job.longest - len(prompt), self._context_length)
            refusal.param = param
            raise refusal
        return job

    def _grammar(self, request: Request) -> Grammar | None:
        constraint = constraint_of(request)
        return None if constraint is None else self._grammars.read(constraint)

    def _samplings(self, request: Request) -> list[Sampling]:
        seed = request.seed if request.seed is not None else secrets.randbits(63)
        return [
            Sampling(
                temperature=1.0 if request.temperature is None else request.temperature,
                top_p=1.0 if request.top_p is None else request.top_p,
                seed=seed,
                choice=choice,
                presence_penalty=request.presence_penalty or 0.0,
                frequency_penalty=request.frequency_penalty or 0.0,
                logit_bias=self._logit_bias(request),
                top_logprobs=_top_logprobs(request),
            )
            for choice in range(request.n or 1)
        ]

    def _logit_bias(self, request: Request) -> dict[int, float] | None:
        size = self._vocabulary.size
        biases: dict[int, float] = {}
        for key, bias in (request.logit_bias or {}).items():
            # Its length is looked at first: Python refuses to read a number of more than 4,300 digits.
            if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) < size):
                message = f"'{key[:20]}' in logit_bias is not a token id of this model (0 to {size - 1})."
                raise _invalid("logit_bias", message)
            biases[int(key)] = bias
        return biases or None


def _top_logprobs(request: Request) -> int | None:
    if not isinstance(request, ChatCompletionRequest):
        return request.logprobs
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise _invalid("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    return None


def _invalid(param: str, message: str) -> EngineError:
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="invalid_value")
