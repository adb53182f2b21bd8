"""What every endpoint shares: how a completion is asked for, and how it is accounted for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from gristmill.dispatch.asking import Ask
from gristmill.wire.common import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from gristmill.wire.errors import ApiError

T = TypeVar("T")

#: That one request may ask the engine at once; the number that OpenAI takes of embeddings' inputs.
MAX_PROMPTS = 2048


class Backend(NamedTuple):
    """What computes: an engine, through whatever dispatching and retrying the caller wants.

    ``forwards`` says of an endpoint whether the engine takes its requests as they came; then it is asked so.
    """

    ask: Ask
    forwards: Callable[[str], bool] = lambda path: False


class Answer(NamedTuple):
    """The response body, and its token counts for the batch's sums. ``reused``: from an earlier batch."""

    body: msgspec.Struct | msgspec.Raw
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    reused: bool = False

    def without_tokens(self) -> Answer:
        """The same answer, given again without asking the engine."""
        return self._replace(prompt_tokens=0, cached_tokens=0, completion_tokens=0, reused=False)

    @classmethod
    def reused_body(cls, body: bytes) -> Answer:
        """An earlier answer to the same request; nothing was computed for it."""
        return cls(msgspec.Raw(body), 0, 0, 0, reused=True)


async def all_of(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers to all questions of one request, asked at once. Where one fails, or nobody waits any longer, the
    others are given up: they must not go on occupying the engine."""
    asking = [asyncio.ensure_future(each) for each in asked]
    try:
        return list(await asyncio.gather(*asking))
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def too_many(param: str, things: str, number: int) -> ApiError:
    message = f"Invalid '{param}': a request holds at most {MAX_PROMPTS:,} {things}, but this one has {number:,}."
    return ApiError(400, message, param=param, code="array_above_max_length")


def cannot_store() -> ApiError:
    message = (
        "This server keeps no chat completions to look up later, so it cannot honour 'store': true. Leave 'store' "
        "out; the answers of a batch are kept in its output file."
    )
    return ApiError(400, message, param="store", code="unsupported_parameter")


def new_id(prefix: str) -> str:
    # Unique, not secret: one system call a row for real entropy would cost more than the rest of the answer.
    return f"{prefix}{random.getrandbits(112):028x}"


def now() -> int:
    return int(time.time())


def usage(
    prompt_tokens: int, cached_tokens: int | None, completion_tokens: int, forced_tokens: int = 0
) -> CompletionUsage:
    """Details of the completion are left out where no grammar forced anything."""
    return CompletionUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens),
        completion_tokens_details=CompletionTokensDetails(forced_tokens) if forced_tokens else msgspec.UNSET,
    )
