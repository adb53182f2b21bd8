"""``/v1/responses``, at once or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import host, read_body, reply
from gristmill.api.streaming import EVENTS, bridged_stream, forward_stream
from gristmill.engines.protocol import ForwardRequest
from gristmill.inference import bridge, forwarding, responses
from gristmill.inference.answer import Backend
from gristmill.inference.recent_items import RecentItems
from gristmill.inference.responses_stream import ResponseStream
from gristmill.wire.response_events import ResponseEvent
from gristmill.wire.responses import ResponseObject, ResponseRequest

router = APIRouter(prefix="/v1", tags=["responses"])


@router.post(
    "/responses",
    summary="Response",
    openapi_extra=described(
        body=ResponseRequest, answer=ResponseObject, media={EVENTS: ResponseEvent}, asks_engine=True
    ),
)
async def create_response(request: Request) -> Response:
    """Nothing is kept to be looked up or continued, but by a server that it passes through to."""
    dispatcher = host(request).dispatcher
    body = await read_body(request)
    if dispatcher.forwards(responses.PATH):
        return await _forward(request, forwarding.response_request(responses.PATH, body))
    recent: RecentItems = request.app.state.recent_items
    wanted = responses.parse(body, recent)
    if wanted.stream:
        chat_body = responses.chat_body(wanted, body, dispatcher.passes_through)
        asked = dispatcher.resolved(bridge.request(chat_body, dispatcher.passes_through, responses.NAMES))
        wanted.model = asked.model
        translator = ResponseStream(wanted) if wanted.store is False else ResponseStream(wanted, recent.remember)
        return await unless_disconnected(request, bridged_stream(dispatcher, asked, translator, responses.NAMES))
    backend = Backend(dispatcher.ask_once, dispatcher.forwards)
    return reply((await unless_disconnected(request, responses.answer(body, backend, recent))).body)


async def _forward(request: Request, wanted: ForwardRequest) -> Response:
    dispatcher = host(request).dispatcher
    if wanted.stream:
        return await unless_disconnected(request, forward_stream(dispatcher, wanted))
    return reply((await unless_disconnected(request, forwarding.answer(wanted, dispatcher.ask_once))).body)
