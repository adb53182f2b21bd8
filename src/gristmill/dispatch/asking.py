"""How an engine is asked: one way for each kind of request, chosen by its type."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, overload

from gristmill.engines.errors import unsupported_endpoint
from gristmill.engines.isolation import Isolates
from gristmill.engines.protocol import (
    AnyAnswer,
    AnyRequest,
    Completion,
    Embedder,
    EmbeddingRequest,
    Embeddings,
    Engine,
    ForwardedAnswer,
    ForwardRequest,
    LabelRequest,
    LabelScorer,
    LabelScores,
    Request,
    passes_through,
)
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, SCORE

#: An ``OnDelta`` or ``OnEvent``, as the kind of request has it.
Listen = Callable[[Any], None]


class Ask(Protocol):
    """What a request of each kind is answered with."""

    @overload
    def __call__(self, request: Request) -> Coroutine[Any, Any, Completion]: ...
    @overload
    def __call__(self, request: ForwardRequest) -> Coroutine[Any, Any, ForwardedAnswer]: ...
    @overload
    def __call__(self, request: LabelRequest) -> Coroutine[Any, Any, LabelScores]: ...
    @overload
    def __call__(self, request: EmbeddingRequest) -> Coroutine[Any, Any, Embeddings]: ...


async def ask_engine(
    engine: Engine,
    request: AnyRequest,
    listen: Listen | None = None,
    *,
    interactive: bool = False,
    alone: bool = False,
) -> AnyAnswer:
    """Raises EngineError, also for what the engine does not answer at all. ``alone``: of an engine that isolates."""
    if endpoint_of(request) in engine.capabilities.endpoints:
        if alone and isinstance(engine, Isolates):
            return await engine.ask_alone(request)
        match request:
            case ForwardRequest() if passes_through(engine):
                return await engine.forward(request, listen, interactive=interactive)
            case LabelRequest() if isinstance(engine, LabelScorer):
                return await engine.score(request, interactive=interactive)
            case EmbeddingRequest() if isinstance(engine, Embedder):
                return await engine.embed(request, interactive=interactive)
            case ChatCompletionRequest() | CompletionRequest():
                return await engine.complete(request, listen, interactive=interactive)
    raise unsupported_endpoint(endpoint_of(request), engine.name, sorted(engine.capabilities.endpoints))


def endpoint_of(request: AnyRequest) -> str:
    """The path that answers such a request."""
    match request:
        case ForwardRequest():
            return request.path
        case LabelRequest():
            return SCORE
        case EmbeddingRequest():
            return EMBEDDINGS
        case _:
            return CHAT if isinstance(request, ChatCompletionRequest) else COMPLETIONS


def cost(answer: AnyAnswer) -> float:
    """Tokens that the engine has computed; where a server does not report them, an answer counts as one."""
    decoded = (answer.completion_tokens or 0) if isinstance(answer, Completion | ForwardedAnswer) else 0
    cached = 0 if isinstance(answer, Embeddings) else answer.cached_tokens or 0
    return max(1.0, float((answer.prompt_tokens or 0) - cached + decoded))
