"""``/v1/embeddings``: request and answer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class CreateEmbeddingRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """``input`` is one text, or several; or the token ids of one, or of several."""

    model: str
    input: str | list[str | TokenId | list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    user: str | None = None


class Embedding(msgspec.Struct):
    """The numbers of a vector, or base64 of them as float32 in little-endian order."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(msgspec.Struct):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: str = "list"
