"""``/v1/chat/completions`` and ``/v1/completions``, at once or streamed, and the endpoints that answer at once."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import host, read_body, reply
from gristmill.api.streaming import EVENTS, Chunks, Piece, forward_stream, stream
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.protocol import ChoiceDelta, ForwardRequest
from gristmill.inference import chat, completions, forwarding
from gristmill.inference.answer import Answer, Backend, new_id, now, usage
from gristmill.inference.endpoints import ENDPOINTS
from gristmill.wire.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChunkChoice, Delta
from gristmill.wire.completions import CompletionChoice, CompletionRequest, TextCompletion
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
        return await _forward(request, forwarding.chat_request(chat.PATH, body))
    wanted = dispatcher.resolved(chat.parse(body))
    if wanted.stream:
        return await unless_disconnected(request, stream(dispatcher, wanted, _chat_chunks(wanted)))
    return await _answer(request, chat.answer(body, _backend(dispatcher)))


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
        return await _forward(request, forwarding.text_request(completions.PATH, body))
    wanted = completions.parse(body)
    if wanted[0].stream:
        first = dispatcher.resolved(wanted[0])
        return await unless_disconnected(request, stream(dispatcher, first, _text_chunks(first)))
    return await _answer(request, completions.answer(body, _backend(dispatcher)))


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
    return await _answer(request, ENDPOINTS[path].answer(body, _backend(host(request).dispatcher)))


async def _forward(request: Request, wanted: ForwardRequest) -> Response:
    dispatcher = host(request).dispatcher
    if wanted.stream:
        return await unless_disconnected(request, forward_stream(dispatcher, wanted))
    return await _answer(request, forwarding.answer(wanted, dispatcher.ask_once))


async def _answer(request: Request, work: Coroutine[Any, Any, Answer]) -> Response:
    return reply((await unless_disconnected(request, work)).body)


def _backend(dispatcher: Dispatcher) -> Backend:
    """Somebody is waiting for the answer: one attempt, and its error if it fails."""
    return Backend(dispatcher.ask_once, dispatcher.forwards)


def _chat_chunks(request: ChatCompletionRequest) -> Chunks:
    blank = ChatCompletionChunk(id=new_id("chatcmpl-"), created=now(), model=request.model, choices=[])
    legacy = chat.asks_for_functions(request)

    def chunk(*choices: ChunkChoice) -> msgspec.Struct:
        return msgspec.structs.replace(blank, choices=list(choices))

    def chunks(piece: Piece | None) -> list[msgspec.Struct]:
        if piece is None:
            return [chunk(ChunkChoice(i, Delta(role="assistant", content=""))) for i in range(request.n or 1)]
        if isinstance(piece, ChoiceDelta):
            said = chat.delta(piece, legacy=legacy)
            return [chunk(ChunkChoice(piece.index, said, logprobs=chat.delta_logprobs(piece)))]
        reasons = [chat.finish_reason(choice, legacy=legacy) for choice in piece.choices]
        ends = [chunk(ChunkChoice(i, Delta(), reason)) for i, reason in enumerate(reasons)]
        if request.stream_options and request.stream_options.include_usage:
            totals = usage(piece.prompt_tokens, piece.cached_tokens, piece.completion_tokens, piece.forced_tokens)
            ends.append(msgspec.structs.replace(blank, usage=totals))
        return ends

    return chunks


def _text_chunks(request: CompletionRequest) -> Chunks:
    blank = TextCompletion(id=new_id("cmpl-"), created=now(), model=request.model, choices=[], usage=None)
    positions = [0] * (request.n or 1)

    def chunk(*choices: CompletionChoice) -> msgspec.Struct:
        return msgspec.structs.replace(blank, choices=list(choices))

    def chunks(piece: Piece | None) -> list[msgspec.Struct]:
        if piece is None:
            return []
        if isinstance(piece, ChoiceDelta):
            found = None
            if piece.logprobs is not None:
                found = completions.logprobs_from(piece.logprobs, positions[piece.index])
                positions[piece.index] += sum(map(len, found.tokens))
            return [chunk(CompletionChoice(piece.index, piece.text, None, found))]
        ends = [chunk(CompletionChoice(i, "", choice.finish_reason)) for i, choice in enumerate(piece.choices)]
        if request.stream_options and request.stream_options.include_usage:
            totals = usage(piece.prompt_tokens, piece.cached_tokens, piece.completion_tokens, piece.forced_tokens)
            ends.append(msgspec.structs.replace(blank, usage=totals))
        return ends

    return chunks
