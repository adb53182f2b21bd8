"""``/v1/messages``, Anthropic's dialect, over the bridge to chat completions."""

from __future__ import annotations

import msgspec

from gristmill.inference import bridge, messages_answer
from gristmill.inference.answer import Answer, Backend
from gristmill.inference.messages_request import NAMES, chat_body, parse, parse_as
from gristmill.wire.messages import CountTokensRequest, MessagesRequest, TokensCount

PATH = "/v1/messages"

_count_decoder = msgspec.json.Decoder(CountTokensRequest)


async def answer(body: bytes, backend: Backend) -> Answer:
    return await answer_to(parse(body), backend)


async def answer_to(request: MessagesRequest, backend: Backend) -> Answer:
    completion = await bridge.complete(chat_body(request), backend, NAMES)
    return Answer(messages_answer.message(completion), *bridge.tokens(completion))


async def count_tokens(body: bytes, backend: Backend) -> Answer:
    """How many tokens a request's prompt has. Only an engine knows, by its own template and tokenizer, and all that
    every engine tells is how many it has read: so it is asked for an answer of one token. The prompt stays in its
    cache, where it keeps one."""
    asked = parse_as(_count_decoder, body)
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__}
    completion = await bridge.complete(chat_body(MessagesRequest(**fields, max_tokens=1)), backend, NAMES)
    return Answer(TokensCount(completion.prompt_tokens), *bridge.tokens(completion))
