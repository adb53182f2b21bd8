"""``/v1/messages``, Anthropic's Messages API: at once, streamed, and counting tokens."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from gristmill.api.answering import answered, backend
from gristmill.api.description import described
from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import host, read_body
from gristmill.api.streaming import EVENTS, bridged_stream
from gristmill.inference import bridge, messages
from gristmill.inference.messages_answer import MessageTranslator
from gristmill.inference.messages_request import NAMES, chat_body, parse
from gristmill.wire.errors import ApiError, clip
from gristmill.wire.message_events import MessageEvent
from gristmill.wire.messages import (
    VERSION_HEADER,
    VERSIONS,
    CountTokensRequest,
    MessageAnswer,
    MessageErrorResponse,
    MessagesRequest,
    TokensCount,
)


async def check_version(request: Request) -> None:
    """Raises ApiError 400."""
    given = request.headers.get(VERSION_HEADER)
    if given is None:
        message = f"{VERSION_HEADER}: header is required. Send '{VERSION_HEADER}: {VERSIONS[0]}'."
        raise ApiError(400, message, param=VERSION_HEADER)
    if given not in VERSIONS:
        message = f"{VERSION_HEADER}: '{clip(given)}' is not a valid version. Send '{VERSION_HEADER}: {VERSIONS[0]}'."
        raise ApiError(400, message, param=VERSION_HEADER)


versioned = [Depends(check_version)]
router = APIRouter(prefix=messages.PATH, tags=["messages"], dependencies=versioned)


@router.post(
    "",
    summary="Create a message",
    openapi_extra=described(
        body=MessagesRequest,
        answer=MessageAnswer,
        media={EVENTS: MessageEvent},
        error=MessageErrorResponse,
        asks_engine=True,
    ),
)
async def create_message(request: Request) -> Response:
    body = await read_body(request)
    dispatcher = host(request).dispatcher
    wanted = parse(body)
    if wanted.stream:
        asked = bridge.request(chat_body(wanted, bridge.STREAMED), dispatcher.passes_through, NAMES)
        translator = MessageTranslator(wanted.model)
        stream = bridged_stream(dispatcher, dispatcher.resolved(asked), translator, NAMES)
        return await unless_disconnected(request, stream)
    return await answered(request, messages.answer_to(wanted, backend(request)))


@router.post(
    "/count_tokens",
    summary="How many tokens a message's prompt has",
    openapi_extra=described(body=CountTokensRequest, answer=TokensCount, error=MessageErrorResponse, asks_engine=True),
)
async def count_tokens(request: Request) -> Response:
    """The engine reads the prompt, and is asked for one token: it takes as long as that does."""
    body = await read_body(request)
    return await answered(request, messages.count_tokens(body, backend(request)))
