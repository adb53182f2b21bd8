"""Text completions: request and answer (also the shape of a stream's chunks)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gristmill.wire.chat import (
    Bias,
    ChoiceCount,
    MinP,
    Penalty,
    RepetitionPenalty,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
    TokenLimit,
    TopK,
    TopP,
)
from gristmill.wire.common import CompletionUsage


class CompletionRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The parameters of ``POST /v1/completions``. ``prompt`` is a string, a list of token ids, or a list of either."""

    prompt: str | list[Any]
    model: str
    max_tokens: TokenLimit | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: ChoiceCount | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    structured_outputs: Any = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    best_of: ChoiceCount | None = None
    echo: bool | None = None
    suffix: str | None = None
    user: str | None = None

    def token_limit(self) -> int | None:
        return self.max_tokens


class CompletionLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: str | None
    logprobs: CompletionLogprobs | None = None


class TextCompletion(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None
    object: str = "text_completion"
