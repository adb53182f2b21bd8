"""What the engine reads from servers, under the fields' own names; everything else in their answers is ignored.

The shapes are OpenAI's, with what vLLM and SGLang (``max_model_len``) and llama.cpp (``meta``, ``/props``) add.
"""

from __future__ import annotations

from typing import Any

import msgspec


class ServedEndpoints(msgspec.Struct, frozen=True):
    """Another Gristmill: what it answers with the model."""

    endpoints: list[str]


class ModelMeta(msgspec.Struct, frozen=True):
    """llama.cpp: ``n_ctx`` is the context of one slot."""

    n_ctx: int | None = None


class ModelCard(msgspec.Struct, frozen=True):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: ModelMeta | None = None
    gristmill: ServedEndpoints | None = None


class ModelCards(msgspec.Struct, frozen=True):
    """``GET /v1/models``."""

    data: list[ModelCard]


class Props(msgspec.Struct, frozen=True):
    """``GET /props`` of llama.cpp's server."""

    total_slots: int


class TopToken(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class Token(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopToken] = []


class Logprobs(msgspec.Struct, frozen=True):
    """``content`` in chat answers, and in llama.cpp's text completions; the other three in text completions."""

    content: list[Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class MessagePart(msgspec.Struct, frozen=True):
    content: str | None = None


class ChoicePart(msgspec.Struct, frozen=True):
    """Of a chat answer (``message``), of a piece of its stream (``delta``), or of a text completion (``text``)."""

    index: int = 0
    message: MessagePart | None = None
    delta: MessagePart | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    def content(self) -> str:
        part = self.message or self.delta
        return (part.content if part is not None else self.text) or ""


class UsageDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: UsageDetails | None = None


class AnswerBody(msgspec.Struct, frozen=True):
    """A whole answer, or one event of a stream; ``error`` may come in a stream that began with 200."""

    choices: list[ChoicePart] = []
    usage: Usage | None = None
    error: Any = None
