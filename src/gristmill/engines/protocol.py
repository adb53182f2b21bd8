"""The engine protocol: one request in, one completion out, or an error of a known kind.

Engines know nothing of batches, files or HTTP servers. A request is the caller's own, decoded but otherwise
untouched, so that an engine can honour, translate or refuse each parameter by name.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from gristmill.wire.chat import ChatCompletionRequest, Message, TokenLogprob
from gristmill.wire.common import INERT_PARAMETERS
from gristmill.wire.completions import CompletionRequest
from gristmill.wire.errors import clip

#: A text prompt here is one string or one list of token ids, never several prompts.
Request = ChatCompletionRequest | CompletionRequest

#: Called with a choice's index and the text just decoded for it, in order; for streaming.
OnText = Callable[[int, str], None]

#: Called with each server-sent event of a stream as it came, with the blank line that ends it.
OnEvent = Callable[[bytes], None]


_LISTED_MODELS = 20


class ErrorKind(enum.StrEnum):
    #: The request itself cannot be answered; never retried.
    INVALID_REQUEST = "invalid_request"
    #: The engine asks for a pause; retried, and not counted as an attempt.
    OVERLOADED = "overloaded"
    #: The engine cannot be reached, and has not begun with this request; pauses everything that uses it.
    UNAVAILABLE = "unavailable"
    #: This request took too long; retried a few times.
    TIMEOUT = "timeout"
    #: This request was cut off while it was being answered; retried a few times.
    INTERRUPTED = "interrupted"


class EngineError(Exception):
    """Why there is no completion. ``status``, ``param`` and ``code`` are what the caller is answered.

    ``crashed`` with INTERRUPTED: the server or worker that ended, or closed the connection, while it was answering this
    request. Whatever else it was answering may be the cause as well. With UNAVAILABLE: the server that had the request
    and answered that what stands behind it is away, be it because of this request.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        crashed: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.crashed = crashed


def interrupted(message: str) -> EngineError:
    return EngineError(ErrorKind.INTERRUPTED, message, status=500)


def crashed(server: str, message: str) -> EngineError:
    """``server`` ended, or closed the connection, while it was answering the request."""
    return EngineError(ErrorKind.INTERRUPTED, message, status=500, crashed=server)


def unavailable(message: str, crashed: str | None = None) -> EngineError:
    return EngineError(ErrorKind.UNAVAILABLE, message, status=503, crashed=crashed)


def unsupported_parameter(name: str, engine: str) -> EngineError:
    message = f"Unsupported parameter: '{name}' is not supported by the {engine} engine."
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=name, code="unsupported_parameter")


def unknown_model(model: str, served: tuple[str, ...]) -> EngineError:
    more = len(served) - _LISTED_MODELS
    listed = ", ".join(served[:_LISTED_MODELS]) + (f", and {more:,} more" if more > 0 else "")
    message = f"The model '{clip(model)}' does not exist here. This server has: {listed or 'none'}."
    return EngineError(ErrorKind.INVALID_REQUEST, message, status=404, param="model", code="model_not_found")


def context_length_exceeded(
    prompt_tokens: int, output_tokens: int, context_length: int, output: str = "the completion"
) -> EngineError:
    message = (
        f"This model's maximum context length is {context_length} tokens. However, you requested "
        f"{prompt_tokens + output_tokens} tokens ({prompt_tokens} in the prompt, {output_tokens} in {output})."
    )
    return EngineError(ErrorKind.INVALID_REQUEST, message, param="messages", code="context_length_exceeded")


class Choice(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str
    logprobs: list[TokenLogprob] | None = None


class Completion(msgspec.Struct, frozen=True):
    """``cached_tokens`` counts the prompt tokens whose KV state was reused; None where it is not reported.

    ``forced_tokens`` counts the completion tokens that a grammar left no choice about, so that they were not decoded.
    """

    model: str
    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    forced_tokens: int = 0


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


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can do. ``slots`` is how many requests in flight keep it busy.

    With ``slots_known`` false it is only an upper bound, and the dispatcher finds out how many pay. ``leader_first``:
    one prefix cache serves all slots, and the first row of a prefix should fill it before its siblings come.
    ``interactive_slots``: so many interactive requests come besides, as the engine puts them first; with 0 it makes no
    difference between requests, and they take places among the others.
    """

    slots: int
    parameters: frozenset[str]
    context_length: int | None = None
    slots_known: bool = True
    leader_first: bool = False
    interactive_slots: int = 0


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
        self, request: Request, on_text: OnText | None = None, *, interactive: bool = False
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
class PassesThrough(Protocol):
    """What an engine is besides, if it can pass a request on to a server as it came, whatever is in it."""

    async def forward(
        self, request: ForwardRequest, on_event: OnEvent | None = None, *, interactive: bool = False
    ) -> ForwardedAnswer:
        """As ``Engine.complete``; ``on_event`` is called for a request that asks for a stream."""
        ...


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


def prompt_parts(request: Request | ForwardRequest | LabelRequest) -> list[bytes]:
    """The prompt in pieces, in the order of its tokens: messages, or one text. Rows that share the beginning of their
    prompt share the first of them."""
    if isinstance(request, ForwardRequest):
        return [bytes(part) for part in request.prompt]
    prompt = request.messages if isinstance(request, ChatCompletionRequest) else request.prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], Message):
        texts = [f"{message.role}:{message.text()}" for message in prompt]
    else:
        texts = [prompt if isinstance(prompt, str) else " ".join(map(str, prompt))]
    return [text.encode("utf-8", "replace") for text in texts]


#: What every engine may take: the request itself, and what asks for nothing.
_TAKEN = INERT_PARAMETERS | {"messages", "prompt", "model", "parallel_tool_calls"}

#: Values that ask for what happens anyway.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,), "best_of": (1,), "frequency_penalty": (0.0,), "presence_penalty": (0.0,), "logprobs": (False,),
    "top_logprobs": (0,), "echo": (False,), "response_format": ({"type": "text"},), "tools": ([],),
    "tool_choice": ("none", "auto"), "functions": ([],), "logit_bias": ({},), "modalities": (["text"],),
    "stop": ([],), "top_p": (1.0,), "add_generation_prompt": (True,), "continue_final_message": (False,),
}  # fmt: skip


def check_parameters(request: Request, capabilities: Capabilities, engine: str) -> None:
    """Refuse, by name, a parameter the engine cannot honour: asking for it is never silently dropped."""
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if value is None or name in _TAKEN or name in capabilities.parameters:
            continue
        if value not in _NEUTRAL.get(name, ()):
            raise unsupported_parameter(name, engine)
    if isinstance(request, ChatCompletionRequest):
        _check_text_only(request, engine)


def _check_text_only(request: ChatCompletionRequest, engine: str) -> None:
    for index, message in enumerate(request.messages):
        for name in ("tool_calls", "function_call", "audio"):
            if getattr(message, name):
                raise unsupported_parameter(f"messages[{index}].{name}", engine)
        if isinstance(message.content, list):
            for part in message.content:
                if part.type != "text":
                    raise unsupported_parameter(f"messages[{index}].content ({part.type})", engine)
