"""What several resources share: pages of a list, token usage of one answer, parameters that ask for nothing."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

#: Body parameters that change no answer.
INERT_PARAMETERS = frozenset(
    {"user", "metadata", "service_tier", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
     "prompt_cache_options", "stream", "stream_options"}
)  # fmt: skip


class ListPage(msgspec.Struct, Generic[T]):
    """A page of a list; ``first_id`` and ``last_id`` are cursors, empty strings where there is nothing."""

    data: list[T]
    first_id: str
    last_id: str
    has_more: bool
    object: str = "list"


class PromptTokensDetails(msgspec.Struct):
    #: Prompt tokens whose KV state was reused; null where the engine does not report it.
    cached_tokens: int | None = None


class CompletionTokensDetails(msgspec.Struct):
    #: Tokens that a grammar left no choice about, so that they were not decoded. Not in OpenAI's API.
    forced_tokens: int


class CompletionUsage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | msgspec.UnsetType = msgspec.UNSET
