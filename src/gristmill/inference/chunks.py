"""The chunks of a stream, of chat and text completions: from what an engine says to what is sent. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gristmill.engines.protocol import ChoiceDelta, Completion, Request
from gristmill.inference import chat, completions
from gristmill.inference.answer import new_id, now, usage
from gristmill.wire.chat import ChatCompletionChunk, ChatCompletionRequest, ChunkChoice, Delta
from gristmill.wire.common import CompletionUsage
from gristmill.wire.completions import CompletionChoice, CompletionRequest, TextCompletion

Piece = ChoiceDelta | Completion
#: Turns what the engine said into the chunks of one endpoint; None comes first, a Completion last.
Chunks = Callable[[Piece | None], list[msgspec.Struct]]


def chat_chunks(request: ChatCompletionRequest) -> Chunks:
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
        totals = _totals(request, piece)
        ends = [chunk(ChunkChoice(i, Delta(), reason)) for i, reason in enumerate(reasons)]
        return ends if totals is None else [*ends, msgspec.structs.replace(blank, usage=totals)]

    return chunks


def text_chunks(request: CompletionRequest) -> Chunks:
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
        totals = _totals(request, piece)
        ends = [chunk(CompletionChoice(i, "", choice.finish_reason)) for i, choice in enumerate(piece.choices)]
        return ends if totals is None else [*ends, msgspec.structs.replace(blank, usage=totals)]

    return chunks


def _totals(request: Request, completion: Completion) -> CompletionUsage | None:
    """What the last chunk says, where the request asks for it."""
    if not request.stream_options or not request.stream_options.include_usage:
        return None
    return usage(
        completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens, completion.forced_tokens
    )
