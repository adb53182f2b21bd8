"""The endpoints that can be asked directly or by the lines of a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gristmill.inference import chat, completions, score
from gristmill.inference.answer import Answer, Backend


class Endpoint(NamedTuple):
    """``required`` is the body field (besides model) that a batch's validation insists on; None where there is none."""

    path: str
    title: str
    required: str | None
    answer: Callable[[bytes, Backend], Awaitable[Answer]]


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(chat.PATH, "Chat Completions", "messages", chat.answer),
        Endpoint(completions.PATH, "Completions", "prompt", completions.answer),
        Endpoint("/v1/score", "Score", None, score.answer),
    )
}

#: Endpoints the OpenAI Batch API has and this server has not: they get an answer that says so.
UNAVAILABLE_ENDPOINTS = (
    "/v1/responses",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
