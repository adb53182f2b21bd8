"""``/v1/rerank`` and ``/v1/moderations``, which pass through to servers: what is common to them (Jina, Cohere, vLLM,
llama.cpp; OpenAI). Requests and answers may hold more."""

from __future__ import annotations

from typing import Any

import msgspec


class RerankRequest(msgspec.Struct):
    model: str
    query: Any
    documents: list[Any]
    top_n: int | None = None


class RerankResult(msgspec.Struct):
    """``index`` is the document's place in the request."""

    index: int
    relevance_score: float


class RerankResponse(msgspec.Struct):
    model: str
    results: list[RerankResult]


class ModerationRequest(msgspec.Struct):
    model: str
    input: str | list[Any]


class ModerationResponse(msgspec.Struct):
    id: str
    model: str
    results: list[Any]
