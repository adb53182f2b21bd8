"""``/v1/chat/completions`` and ``/v1/completions``, at once or streamed, and the endpoints that answer at once."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.api.answering import answered, backend, forwarded
from gristmill.api.description import described
from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import host, read_body
from gristmill.api.streaming import EVENTS, stream
from gristmill.inference import chat, completions, forwarding
from gristmill.inference.chunks import chat_chunks, text_chunks
from gristmill.inference.endpoints import ENDPOINTS, check_offered
from gristmill.wire.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest, TextCompletion
from gristmill.wire.embeddings import CreateEmbeddingRequest, CreateEmbeddingResponse
from gristmill.wire.paths import EMBEDDINGS, MODERATIONS, RERANK, SCORE
from gristmill.wire.score import ScoreRequest, ScoreResponse
from gristmill.wire.servers_own import ModerationRequest, ModerationResponse, RerankRequest, RerankResponse

router = APIRouter(prefix="/v1", tags=["inference"])


@router.post(
    "/chat/completions",
    summary="Chat completion",
    openapi_extra=described(
        body=ChatCompletionRequest, answer=ChatCompletion, media={EVENTS: ChatCompletionChunk}, asks_engine=True
    ),
)
async def create_chat_completion(request: Request) -> Response:
    dispatcher = host(request).dispatcher
    body = await read_body(request)
    if dispatcher.forwards(chat.PATH):
        return await forwarded(request, forwarding.chat_request(chat.PATH, body))
    wanted = dispatcher.resolved(chat.parse(body))
    if wanted.stream:
        return await unless_disconnected(request, stream(dispatcher, wanted, chat_chunks(wanted)))
    return await answered(request, chat.answer(body, backend(request)))


@router.post(
    "/completions",
    summary="Text completion",
    openapi_extra=described(
        body=CompletionRequest, answer=TextCompletion, media={EVENTS: TextCompletion}, asks_engine=True
    ),
)
async def create_completion(request: Request) -> Response:
    dispatcher = host(request).dispatcher
    body = await read_body(request)
    if dispatcher.forwards(completions.PATH):
        return await forwarded(request, forwarding.text_request(completions.PATH, body))
    wanted = completions.parse(body)
    if wanted[0].stream:
        first = dispatcher.resolved(wanted[0])
        return await unless_disconnected(request, stream(dispatcher, first, text_chunks(first)))
    return await answered(request, completions.answer(body, backend(request)))


@router.post(
    "/score",
    summary="Probabilities of labels after a prompt",
    openapi_extra=described(body=ScoreRequest, answer=ScoreResponse, asks_engine=True),
)
async def create_score(request: Request) -> Response:
    return await _endpoint(request, SCORE)


@router.post(
    "/embeddings",
    summary="Embeddings",
    openapi_extra=described(body=CreateEmbeddingRequest, answer=CreateEmbeddingResponse, asks_engine=True),
)
async def create_embedding(request: Request) -> Response:
    return await _endpoint(request, EMBEDDINGS)


@router.post(
    "/rerank",
    summary="How relevant documents are to a query",
    openapi_extra=described(body=RerankRequest, answer=RerankResponse, asks_engine=True),
)
async def rerank(request: Request) -> Response:
    """Passed through to a server that has it."""
    return await _endpoint(request, RERANK)


@router.post(
    "/moderations",
    summary="Moderation",
    openapi_extra=described(body=ModerationRequest, answer=ModerationResponse, asks_engine=True),
)
async def create_moderation(request: Request) -> Response:
    """Passed through to a server that has it."""
    return await _endpoint(request, MODERATIONS)


async def _endpoint(request: Request, path: str) -> Response:
    """The answer of an endpoint that has nothing to stream."""
    body = await read_body(request)
    dispatcher = host(request).dispatcher
    check_offered(path, dispatcher.engine.name, dispatcher.endpoints)
    return await answered(request, ENDPOINTS[path].answer(body, backend(request)))
