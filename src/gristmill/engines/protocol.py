"""The engine protocol: one request in, one completion out, or an error of a known kind.

Engines know nothing of batches, files or HTTP servers. A request is the caller's own, decoded but otherwise
untouched, so that an engine can honour, translate or refuse each parameter by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

import msgspec

from gristmill.wire.chat import ChatCompletionRequest, Message, TokenLogprob
from gristmill.wire.completions import CompletionRequest
from gristmill.wire.paths import CHAT, COMPLETIONS
from gristmill.wire.tools import ToolCall, ToolCallDelta

#: A text prompt here is one string or one list of token ids, never several prompts.
Request = ChatCompletionRequest | CompletionRequest

#: Called with each server-sent event of a stream as it came, with the blank line that ends it.
OnEvent = Callable[[bytes], None]


class Choice(msgspec.Struct, frozen=True):
    """``text`` is what the model says to the user; tool calls and reasoning, where it has any, stand beside it."""

    text: str
    finish_reason: str
    logprobs: list[TokenLogprob] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    #: What the model says instead of an answer that it refuses to give; only servers tell it from other text.
    refusal: str | None = None
    #: Which of the request's ``stop`` ended the text, where the engine can tell.
    stop: str | None = None


class ChoiceDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was just decoded of choice ``index``: all deltas of a choice, put together, are the Choice."""

    index: int
    text: str = ""
    logprobs: list[TokenLogprob] | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning: str = ""
    refusal: str = ""


#: Called with each piece of an answer as it is decoded, in order within a choice; for streaming.
OnDelta = Callable[[ChoiceDelta], None]


class Completion(msgspec.Struct, frozen=True):
    """``cached_tokens`` counts the prompt tokens whose KV state was reused; None where it is not reported.

    ``forced_tokens`` counts the completion tokens that a grammar left no choice about, so that they were not decoded;
    ``reasoning_tokens`` those of the reasoning, where it is reported.
    """

    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    forced_tokens: int = 0
    reasoning_tokens: int | None = None


_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ForwardRequest(msgspec.Struct, frozen=True):
    """A request to be passed on as it came: ``body`` is what the client sent, and ``path`` where.

    ``prompt`` are the pieces of the body that the prompt is made of (JSON), in the order of its tokens; the last of
    them is the usual place of a row's own part.
    """

    path: str
    model: str
    body: bytes
    prompt: tuple[msgspec.Raw, ...] = ()
    stream: bool = False

    def renamed(self, model: str) -> ForwardRequest:
        """Asking for another model; every other field of the body stays as it is."""
        fields = _fields_decoder.decode(self.body)
        fields["model"] = msgspec.Raw(msgspec.json.encode(model))
        return msgspec.structs.replace(self, model=model, body=msgspec.json.encode(fields))


class ForwardedAnswer(msgspec.Struct, frozen=True):
    """What a server answered, as it came; ``body`` is empty where it was streamed. It is JSON in valid UTF-8.

    Tokens are None where the server does not report them.
    """

    body: bytes
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


class LabelRequest(msgspec.Struct, frozen=True):
    """How probable is each label after ``prompt`` (chat messages, or text)? Labels are texts, or single token ids.

    The last two say where a prompt of chat messages ends, as in a ChatCompletionRequest."""

    model: str
    prompt: str | list[Message]
    labels: list[str] | list[int]
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class LabelScores(msgspec.Struct, frozen=True):
    """``logprobs`` in the order of the labels: of the event that the output starts with the label, and with none of
    the longer labels that begin with it."""

    model: str
    logprobs: tuple[float, ...]
    prompt_tokens: int
    cached_tokens: int | None = None


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """A vector for each input: a text, or its token ids. With ``dimensions`` they are to have so many numbers, where
    the model has as many or more."""

    model: str
    inputs: list[str] | list[list[int]]
    dimensions: int | None = None


class Embeddings(msgspec.Struct, frozen=True):
    """``vectors`` in the order of the inputs, of length 1. Their numbers are float32's, each as the shortest decimal
    that stands for it: so a client is sent no more digits than there are."""

    model: str
    vectors: list[list[float]]
    prompt_tokens: int


#: A request of any kind, and its answer.
AnyRequest = Request | ForwardRequest | LabelRequest | EmbeddingRequest
AnyAnswer = Completion | ForwardedAnswer | LabelScores | Embeddings


class Computing(msgspec.Struct, frozen=True):
    """``on``: what computes, as the end of a sentence ("NVIDIA RTX 4080 through CUDA"). ``advice``: what a person could
    do to have it computed faster here; None where there is nothing to say. ``precision``: in which numbers, where that
    is chosen when the model is loaded; answers of another are not the same. ``build``: the library, the kernels and
    what of the processor chooses among them; answers of another may differ in their last bits. ``chat_template``: the
    SHA-256 of its text."""

    on: str
    advice: str | None = None
    precision: str = "f32"
    build: str | None = None
    threads: int | None = None
    chat_template: str | None = None


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do. ``slots`` is how many requests in flight keep it busy.

    With ``slots_known`` false it is only an upper bound, and the dispatcher finds out how many pay. ``leader_first``:
    one prefix cache serves all slots, and the first row of a prefix should fill it before its siblings come.
    ``interactive_slots``: so many interactive requests come besides, as the engine puts them first; with 0 it makes no
    difference between requests, and they take places among the others. ``alone_slots``: so many requests at a time can
    each have a server of their own while the others go on (``isolation.py``); with 0, one that is to be alone must be
    the only one in flight. ``endpoints`` are paths of the API
    (``wire/paths.py``) whose requests it answers, by whichever of the protocols below, with the models that it has.
    ``pinned`` are fields that every request's body gets, whatever it says itself.
    ``content_parts`` are the types of parts that a message may have. ``computing`` is None where the engine does not
    know what computes.
    """

    slots: int
    parameters: frozenset[str]
    context_length: int | None = None
    slots_known: bool = True
    leader_first: bool = False
    interactive_slots: int = 0
    alone_slots: int = 0
    endpoints: frozenset[str] = frozenset({CHAT, COMPLETIONS})
    pinned: dict[str, Any] = {}
    content_parts: frozenset[str] = frozenset({"text"})
    computing: Computing | None = None


class Engine(Protocol):
    """``start`` before the first request, ``stop`` after the last; ``complete`` from any number of tasks."""

    @property
    def name(self) -> str: ...

    @property
    def models(self) -> tuple[str, ...]:
        """The model names a request may ask for, known once started."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def fingerprint(self) -> str | None:
        """A text that differs wherever the same request, without chance, may be answered differently: weights,
        template, options. None where the engine cannot tell. Known once started."""
        ...

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        """Answer one request, or raise EngineError. Cancelling the task frees what the request holds.

        ``interactive``: somebody is waiting for the answer; an engine that can puts it before the rows of batches."""
        ...


@runtime_checkable
class LabelScorer(Protocol):
    """What an engine is besides, if it can give the probabilities of labels from its logits alone."""

    async def score(self, request: LabelRequest, *, interactive: bool = False) -> LabelScores:
        """As ``Engine.complete``."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """What an engine is besides, if it can turn texts into vectors; whether its models do, ``endpoints`` says."""

    async def embed(self, request: EmbeddingRequest, *, interactive: bool = False) -> Embeddings:
        """As ``Engine.complete``. Nothing is cut to fit: an input that is too long is an error."""
        ...


@runtime_checkable
class PassesThrough(Protocol):
    """What an engine is besides, if it can pass a request on to a server as it came, whatever is in it."""

    async def forward(
        self, request: ForwardRequest, on_event: OnEvent | None = None, *, interactive: bool = False
    ) -> ForwardedAnswer:
        """As ``Engine.complete``; ``on_event`` is called for a request that asks for a stream."""
        ...


@functools.cache
def _passes_through(kind: type) -> bool:
    return issubclass(kind, PassesThrough)


def passes_through(engine: Engine) -> TypeGuard[PassesThrough]:
    """Looked up once a class: to ask it of a protocol costs as much as a tenth of a row's way through the pipeline."""
    return _passes_through(type(engine))


@runtime_checkable
class SelfMonitoring(Protocol):
    """What an engine is besides, if it knows without being asked anything whether it can answer."""

    @property
    def down_reason(self) -> str | None:
        """Why no request can be answered now; None while they can be."""
        ...


@runtime_checkable
class TellsWhatItWaitsFor(Protocol):
    """What an engine is besides, if requests may wait for something before it begins with them, or its start may."""

    @property
    def waiting_for(self) -> str | None:
        """In words, as the end of "waiting for"; None while nothing unusual is waited for."""
        ...


@runtime_checkable
class CountsLoads(Protocol):
    """What an engine is besides, if others may make its server load the model again, which throws its cache away."""

    @property
    def loads(self) -> int:
        """How often a row found the model not loaded, since the start."""
        ...
