"""``/v1/chat/completions``."""

from __future__ import annotations

import msgspec

from gristmill.engines.protocol import Choice, Completion
from gristmill.inference import forwarding
from gristmill.inference.answer import Answer, Backend, cannot_store, new_id, now, usage
from gristmill.wire.chat import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionRequest,
    ChoiceLogprobs,
)
from gristmill.wire.errors import ApiError
from gristmill.wire.json import decode

PATH = "/v1/chat/completions"

_decoder = msgspec.json.Decoder(ChatCompletionRequest)


def parse(body: bytes) -> ChatCompletionRequest:
    request = decode(_decoder, body)
    if request.top_logprobs and not request.logprobs:
        raise ApiError(
            400,
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
            param="top_logprobs",
        )
    if request.store:
        raise cannot_store()
    return request


async def answer(body: bytes, backend: Backend) -> Answer:
    if backend.forward is not None:
        return await forwarding.answer(forwarding.chat_request(PATH, body), backend.forward)
    completion = await backend.complete(parse(body))
    tokens = (completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens)
    return Answer(chat_completion(completion), *tokens)


def chat_completion(completion: Completion) -> ChatCompletion:
    return ChatCompletion(
        id=new_id("chatcmpl-"),
        created=now(),
        model=completion.model,
        choices=[_choice(index, choice) for index, choice in enumerate(completion.choices)],
        usage=usage(
            completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens, completion.forced_tokens
        ),
    )


def _choice(index: int, choice: Choice) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=AssistantMessage(content=choice.text),
        finish_reason=choice.finish_reason,
        logprobs=None if choice.logprobs is None else ChoiceLogprobs(content=choice.logprobs),
    )
