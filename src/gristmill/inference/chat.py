"""``/v1/chat/completions``."""

from __future__ import annotations

import msgspec

from gristmill.engines.protocol import Choice, ChoiceDelta, Completion
from gristmill.inference import forwarding
from gristmill.inference.answer import Answer, Backend, cannot_store, new_id, now, usage
from gristmill.wire.chat import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChatCompletionRequest,
    ChoiceLogprobs,
    Delta,
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
    if backend.forwards(PATH):
        return await forwarding.answer(forwarding.chat_request(PATH, body), backend.ask)
    request = parse(body)
    completion = await backend.ask(request)
    tokens = (completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens)
    return Answer(chat_completion(completion, legacy=asks_for_functions(request)), *tokens)


def asks_for_functions(request: ChatCompletionRequest) -> bool:
    """Whether the answer's calls are wanted under the deprecated name, ``function_call``."""
    return bool(request.functions)


def chat_completion(completion: Completion, *, legacy: bool = False) -> ChatCompletion:
    """``legacy``: a call is a ``function_call``; see ``asks_for_functions``."""
    return ChatCompletion(
        id=new_id("chatcmpl-"),
        created=now(),
        model=completion.model,
        choices=[_choice(index, choice, legacy) for index, choice in enumerate(completion.choices)],
        usage=usage(
            completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens, completion.forced_tokens
        ),
    )


def _choice(index: int, choice: Choice, legacy: bool) -> ChatChoice:
    message = AssistantMessage(content=choice.text if choice.text or not choice.tool_calls else None)
    if choice.tool_calls and legacy:
        message.function_call = choice.tool_calls[0].function
    elif choice.tool_calls:
        message.tool_calls = list(choice.tool_calls)
    if choice.reasoning is not None:
        message.reasoning_content = choice.reasoning
    return ChatChoice(
        index=index,
        message=message,
        finish_reason=finish_reason(choice, legacy=legacy),
        logprobs=None if choice.logprobs is None else ChoiceLogprobs(content=choice.logprobs),
    )


def finish_reason(choice: Choice, *, legacy: bool) -> str:
    return "function_call" if legacy and choice.finish_reason == "tool_calls" else choice.finish_reason


def delta(piece: ChoiceDelta, *, legacy: bool) -> Delta:
    """What a stream's chunk says of a piece of one choice."""
    found = Delta(content=piece.text or None, reasoning_content=piece.reasoning or None)
    if piece.tool_calls and legacy:
        found.function_call = piece.tool_calls[0].function
    elif piece.tool_calls:
        found.tool_calls = list(piece.tool_calls)
    return found


def delta_logprobs(piece: ChoiceDelta) -> ChoiceLogprobs | None:
    return None if piece.logprobs is None else ChoiceLogprobs(content=piece.logprobs)
