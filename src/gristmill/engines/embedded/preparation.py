"""From a request to sequences that are ready to be computed, on threads beside the one that computes steps.

Tokenizing, rendering a chat and compiling a grammar take from half a millisecond to a second; in the step's own thread
everybody would wait for that. Requests of a batch and interactive ones have a thread each, so that the latter wait for
none of the former; each keeps the order in which they came.
"""

from __future__ import annotations

import functools
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gristmill.engines.embedded.embeddings.embedding import EmbeddingTask
from gristmill.engines.embedded.generation import Generation, GenerationRequest, ToolReading
from gristmill.engines.embedded.grammar import Grammar, Grammars
from gristmill.engines.embedded.label_scoring import LabelScoring, LabelTrie
from gristmill.engines.embedded.model_runner import Vocabulary
from gristmill.engines.embedded.pictures.picture import Eyes, Picture
from gristmill.engines.embedded.pictures.picture_prompt import PictureEncoder, PictureMarks, refuse_images
from gristmill.engines.embedded.prompt import PromptTokens
from gristmill.engines.embedded.sampler import Sampling
from gristmill.engines.embedded.scheduling.sequence import Sequence
from gristmill.engines.embedded.tokenizer import TextCache
from gristmill.engines.embedded.tools.tool_reader import CallReader
from gristmill.engines.embedded.worker.frames import Failed, failed_by
from gristmill.engines.errors import context_length_exceeded, invalid_value, unsupported_endpoint
from gristmill.engines.protocol import Request
from gristmill.engines.request_frames import AnySubmit, Submit, SubmitEmbedding, SubmitScore
from gristmill.engines.structured_outputs import Constraint, constraint_of
from gristmill.engines.tools.conversation import has_calls
from gristmill.engines.tools.offer import Offer, new_call_id, offer_of
from gristmill.models.defaults import NO_DEFAULTS, ModelDefaults
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.errors import clip
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, SCORE

#: Labels of one request, together: each of their tokens is a step down a trie, and may be computed with the prompt.
MOST_LABEL_BYTES = 256 * 1024
MOST_LABEL_TOKENS = 16_384
#: Characters of labels whose tokens are kept. The rows of a batch ask for the same labels, and a call of the tokenizer
#: costs a quarter of a millisecond.
_KEPT_LABELS = 2**20


class RequestReader:
    """From a request to what the scheduler and the sampler need, for one model: its vocabulary, template, context
    length (in tokens), and what it brings for what a request does not say. Safe from several threads."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        grammars: Grammars,
        context_length: int,
        defaults: ModelDefaults = NO_DEFAULTS,
        eyes: Eyes | None = None,
    ) -> None:
        """``eyes``: None where the model sees no images."""
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._context_length = context_length
        self._label_tokens = TextCache(functools.partial(vocabulary.encode, special_tokens=False), _KEPT_LABELS)
        self._defaults = defaults.parameters
        self._marks = None if eyes is None else PictureMarks(eyes, context_length)
        encoder = vocabulary if self._marks is None else PictureEncoder(vocabulary, self._marks)
        self._prompts = PromptTokens(encoder, context_length, defaults)

    def read(self, submit: AnySubmit) -> GenerationRequest | LabelScoring:
        """Raises EngineError (invalid request)."""
        if isinstance(submit, SubmitEmbedding):
            raise unsupported_endpoint(EMBEDDINGS, "embedded", [CHAT, COMPLETIONS, SCORE])
        return self._read_request(submit) if isinstance(submit, Submit) else self._read_score(submit)

    def _read_request(self, submit: Submit) -> GenerationRequest:
        request = submit.chat or submit.text
        assert request is not None
        # What is cheap to refuse comes first.
        samplings = self._samplings(request)
        constraint = constraint_of(request)
        offer = offer_of(request) if isinstance(request, ChatCompletionRequest) else None
        request, pictures = self._look(request)
        prompt = self._prompts.of_request(request)
        limit = request.token_limit()
        room = self._context_length - len(prompt)
        if room < (limit or 1):
            error = context_length_exceeded(len(prompt), limit or 1, self._context_length)
            if not isinstance(request, ChatCompletionRequest):
                error.param = "prompt"
            raise error
        stop: str | Iterable[str] = self._defaults.stop if request.stop is None else request.stop
        stops = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
        grammar = self._grammar(request, constraint, offer)
        marks = {} if offer is None else self._grammars.marks(self._prompts.tool_format)
        most = limit or min(room, self._defaults.max_tokens or room)
        generations = []
        for sampling in samplings:
            matcher = None if grammar is None else grammar.matcher()
            sequence = Sequence(prompt, interactive=submit.interactive)
            reader = None if offer is None else CallReader(self._prompts.tool_format, new_call_id)
            tools = None if reader is None else ToolReading(reader, marks)
            generations.append(Generation(sequence, sampling, most, stops, matcher, tools))
            generations[-1].jump_forward(self._vocabulary)
        return GenerationRequest(submit.id, request.model, submit.stream, generations, pictures)

    def _look(self, request: Request) -> tuple[Request, list[Picture]]:
        if not isinstance(request, ChatCompletionRequest):
            return request, []
        messages, pictures = self._look_at(request.messages)
        return (msgspec.structs.replace(request, messages=messages), pictures) if pictures else (request, pictures)

    def _look_at(self, messages: list[Message]) -> tuple[list[Message], list[Picture]]:
        """The messages as text, with marks where images were. Raises EngineError."""
        if self._marks is None:
            refuse_images(messages, "embedded")
            return messages, []
        return self._marks.mark(messages)

    def _grammar(self, request: Request, constraint: Constraint | None, offer: Offer | None) -> Grammar | None:
        form = self._prompts.tool_format
        if offer is not None:
            return self._grammars.of_tools(offer, form, constraint)
        if constraint is not None:
            return self._grammars.read(constraint)
        # Where an answer that calls something is JSON, it cannot be told from one that is meant as text.
        if isinstance(request, ChatCompletionRequest) and has_calls(request.messages) and not form.alone:
            return self._grammars.without_calls(form)
        return None

    def _read_score(self, submit: SubmitScore) -> LabelScoring:
        labels = self._labels(submit)
        if submit.chat is not None:
            param = "messages"
            messages, pictures = self._look_at(submit.chat)
            prompt = self._prompts.of_messages(messages, submit.add_generation_prompt, submit.continue_final_message)
        else:
            param, pictures = "query", []
            prompt = self._prompts.of_text(submit.text or "", param)
        longest = max(map(len, labels))
        # The last token of a label is asked for, not computed.
        if len(prompt) + longest - 1 > self._context_length:
            refusal = context_length_exceeded(len(prompt), longest, self._context_length, output="the longest label")
            refusal.param = param
            raise refusal
        try:
            trie = LabelTrie(labels)
        except ValueError as error:
            raise invalid_value("labels", f"The labels cannot be told apart: {error}.") from None
        return LabelScoring(submit.id, submit.model, prompt, trie, submit.interactive, pictures)

    def _labels(self, submit: SubmitScore) -> list[list[int]]:
        """Their token ids."""
        size = self._vocabulary.size
        if any(not 0 <= label < size for label in submit.label_ids or []):
            raise invalid_value("label_token_ids", f"A label's token id must be from 0 to {size - 1}.")
        if submit.label_ids:
            return [[label] for label in submit.label_ids]
        texts = submit.labels or []
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if size > MOST_LABEL_BYTES:
            message = f"The labels have {size:,} bytes together; at most {MOST_LABEL_BYTES:,} are possible."
            raise invalid_value("labels", message)
        try:
            labels = [self._label_tokens(text) for text in texts]
        except UnicodeEncodeError:
            message = "A label holds half of a surrogate pair, which is no character."
            raise invalid_value("labels", message) from None
        tokens = sum(map(len, labels))
        if tokens > MOST_LABEL_TOKENS:
            message = f"The labels have {tokens:,} tokens together; at most {MOST_LABEL_TOKENS:,} are possible."
            raise invalid_value("labels", message)
        if not labels:
            raise invalid_value("labels", "There are no labels.")
        return labels

    def _samplings(self, request: Request) -> list[Sampling]:
        model = self._defaults
        window = model.repetition_window if request.repetition_penalty is None else None
        seed = _first(request.seed, model.seed)
        asked = Sampling(
            temperature=_first(request.temperature, model.temperature, 1.0),
            top_p=_first(request.top_p, model.top_p, 1.0),
            top_k=max(0, _first(request.top_k, model.top_k, 0)),
            min_p=_first(request.min_p, model.min_p, 0.0),
            repetition_penalty=_first(request.repetition_penalty, model.repetition_penalty, 1.0),
            repetition_window=window,
            seed=secrets.randbits(63) if seed is None else seed,
            presence_penalty=_first(request.presence_penalty, model.presence_penalty, 0.0),
            frequency_penalty=_first(request.frequency_penalty, model.frequency_penalty, 0.0),
            logit_bias=self._logit_bias(request),
            top_logprobs=_top_logprobs(request),
        )
        return [asked._replace(choice=choice) for choice in range(request.n or 1)]

    def _logit_bias(self, request: Request) -> dict[int, float] | None:
        size = self._vocabulary.size
        biases: dict[int, float] = {}
        for key, bias in (request.logit_bias or {}).items():
            # The length first: Python refuses to read thousands of digits.
            if not (len(key) <= 20 and key.isascii() and key.isdecimal() and int(key) < size):
                message = f"'{clip(key[:20])}' in logit_bias is not a token id of this model (0 to {size - 1})."
                raise invalid_value("logit_bias", message)
            biases[int(key)] = bias
        return biases or None


def special_stops(vocabulary: Vocabulary, stops: Iterable[str]) -> frozenset[int]:
    """The tokens that a model's stop strings spell: they are in no answer's text, where strings are looked for."""
    texts = {stop.encode("utf-8", "surrogatepass") for stop in stops}
    return frozenset(token for token in vocabulary.special if vocabulary.special_text(token) in texts)


def _first(*values: Any) -> Any:
    """What is said, by the request before the model."""
    return next((value for value in values if value is not None), None)


def _top_logprobs(request: Request) -> int | None:
    if not isinstance(request, ChatCompletionRequest):
        return request.logprobs
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise invalid_value("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    return None


Prepared = GenerationRequest | LabelScoring | EmbeddingTask | Failed


class Preparation:
    """Every request that is submitted, and not cancelled first, is delivered once: ready, or failed with the reason.

    ``deliver`` is called on the threads of this. After ``cancel(id)`` has returned it is not called for that request.
    """

    def __init__(self, prepare: Callable[[AnySubmit], Prepared], deliver: Callable[[Prepared], None]) -> None:
        self._prepare = prepare
        self._deliver = deliver
        self._lock = threading.Lock()
        #: The ids that have not been delivered.
        self._open: set[int] = set()
        self._queues: dict[bool, queue.SimpleQueue[AnySubmit]] = {}
        #: When the request that is being prepared was begun, by the monotonic clock.
        self._begun: dict[bool, float] = {}
        for interactive in (True, False):
            waiting = self._queues[interactive] = queue.SimpleQueue()
            name = "prepare-interactive" if interactive else "prepare-batch"
            threading.Thread(target=self._run, args=(interactive, waiting), name=name, daemon=True).start()

    @property
    def busy_since(self) -> float | None:
        """When the oldest request that is being prepared was begun, by the monotonic clock."""
        return min(self._begun.copy().values(), default=None)

    def submit(self, frame: AnySubmit) -> None:
        with self._lock:
            self._open.add(frame.id)
        self._queues[frame.interactive].put(frame)

    def cancel(self, request_id: int) -> None:
        """Ids that are unknown have been delivered already."""
        with self._lock:
            self._open.discard(request_id)

    def _run(self, interactive: bool, waiting: queue.SimpleQueue[AnySubmit]) -> None:
        while True:
            frame = waiting.get()
            if frame.id not in self._open:
                continue
            self._begun[interactive] = time.monotonic()
            try:
                prepared = self._prepare(frame)
            except BaseException as error:
                prepared = failed_by(frame.id, error)
            del self._begun[interactive]
            with self._lock:
                if frame.id in self._open:
                    self._open.remove(frame.id)
                    self._deliver(prepared)
