"""The endpoints that can be asked directly or by the lines of a batch."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Set
from typing import Any, NamedTuple

from gristmill.engines.errors import unsupported_endpoint
from gristmill.inference import chat, completions, embeddings, messages, responses, score
from gristmill.inference.answer import Answer, Backend
from gristmill.inference.servers_own import passed_on
from gristmill.wire.paths import EMBEDDINGS, MODERATIONS, RERANK, SCORE


class Endpoint(NamedTuple):
    """``required`` is the body field (besides model) that a batch's validation insists on; None where there is none.

    ``through`` is another endpoint, by which engines answer it that do not have it themselves; None where that cannot
    be.
    """

    path: str
    title: str
    required: str | None
    answer: Callable[[bytes, Backend], Coroutine[Any, Any, Answer]]
    through: str | None = None


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(chat.PATH, "Chat Completions", "messages", chat.answer),
        Endpoint(completions.PATH, "Completions", "prompt", completions.answer),
        Endpoint(responses.PATH, "Responses", "input", responses.answer, through=chat.PATH),
        # Whether there are messages is that request's own affair, as with Anthropic.
        Endpoint(messages.PATH, "Messages", None, messages.answer, through=chat.PATH),
        Endpoint(EMBEDDINGS, "Embeddings", "input", embeddings.answer),
        Endpoint(SCORE, "Score", None, score.answer),
        Endpoint(RERANK, "Rerank", "query", passed_on(RERANK)),
        Endpoint(MODERATIONS, "Moderations", "input", passed_on(MODERATIONS)),
    )
}


def offered(served: Set[str]) -> tuple[str, ...]:
    """What can be asked, in batches and directly, where the engine answers ``served``."""
    return tuple(path for path, each in ENDPOINTS.items() if path in served or each.through in served)


def check_offered(path: str, engine: str, served: Set[str]) -> None:
    """Raises EngineError where the engine answers ``served``, and not ``path`` by any of it."""
    paths = offered(served)
    if path not in paths:
        raise unsupported_endpoint(path, engine, paths)


#: Endpoints the OpenAI Batch API has and this server has not: they get an answer that says so.
UNAVAILABLE_ENDPOINTS = (
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
