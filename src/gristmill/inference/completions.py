"""``/v1/completions``: one prompt or several, as strings or token ids."""

from __future__ import annotations

import msgspec

from gristmill.engines.protocol import Choice, Completion
from gristmill.inference import forwarding
from gristmill.inference.answer import MAX_PROMPTS, Answer, Backend, all_of, new_id, now, too_many, usage
from gristmill.inference.prompt_list import each_of
from gristmill.wire.chat import TokenLogprob
from gristmill.wire.completions import (
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    TextCompletion,
)
from gristmill.wire.errors import ApiError
from gristmill.wire.json import decode

PATH = "/v1/completions"

#: OpenAI's: the tokens of an answer that sets no limit.
DEFAULT_MAX_TOKENS = 16

_decoder = msgspec.json.Decoder(CompletionRequest)


def parse(body: bytes) -> list[CompletionRequest]:
    """One request a prompt, each with a limit."""
    request = decode(_decoder, body)
    prompts = each_of(request.prompt, "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise too_many("prompt", "prompts", len(prompts))
    if request.stream and len(prompts) > 1:
        raise ApiError(400, "Streaming takes one prompt at a time.", param="stream", code="invalid_value")
    limit = request.max_tokens or DEFAULT_MAX_TOKENS
    return [msgspec.structs.replace(request, prompt=prompt, max_tokens=limit) for prompt in prompts]


async def answer(body: bytes, backend: Backend) -> Answer:
    if backend.forwards(PATH):
        return await forwarding.answer(forwarding.text_request(PATH, body), backend.ask)
    requests = parse(body)
    if len(requests) == 1:
        completions = [await backend.ask(requests[0])]
    else:
        completions = await all_of(backend.ask(request) for request in requests)
    prompt_tokens = sum(each.prompt_tokens for each in completions)
    completion_tokens = sum(each.completion_tokens for each in completions)
    reported = [each.cached_tokens for each in completions if each.cached_tokens is not None]
    cached_tokens = sum(reported) if len(reported) == len(completions) else None
    body_out = text_completion(completions)
    forced_tokens = sum(each.forced_tokens for each in completions)
    body_out.usage = usage(prompt_tokens, cached_tokens, completion_tokens, forced_tokens)
    return Answer(body_out, prompt_tokens, cached_tokens, completion_tokens)


def text_completion(completions: list[Completion]) -> TextCompletion:
    choices = [choice for completion in completions for choice in completion.choices]
    return TextCompletion(
        id=new_id("cmpl-"),
        created=now(),
        model=completions[0].model,
        choices=[_choice(index, choice) for index, choice in enumerate(choices)],
        usage=None,
    )


def _choice(index: int, choice: Choice) -> CompletionChoice:
    logprobs = None if choice.logprobs is None else logprobs_from(choice.logprobs)
    return CompletionChoice(index, choice.text, choice.finish_reason, logprobs)


def logprobs_from(tokens: list[TokenLogprob], position: int = 0) -> CompletionLogprobs:
    """``position``: characters of the tokens before these."""
    offsets = []
    for token in tokens:
        offsets.append(position)
        position += len(token.token)
    return CompletionLogprobs(
        tokens=[token.token for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        # The sampled token is always among them, so that there may be one more than was asked for.
        top_logprobs=[
            {top.token: top.logprob for top in token.top_logprobs} | {token.token: token.logprob} for token in tokens
        ],
        text_offset=offsets,
    )
