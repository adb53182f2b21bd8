"""``/v1/responses``, at once or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import host, read_body, reply
from gristmill.api.streaming import EVENTS, bridged_stream
from gristmill.inference import bridge, responses
from gristmill.inference.answer import Backend
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
    """Stateless: nothing is kept to be looked up or continued."""
    dispatcher = host(request).dispatcher
    body = await read_body(request)
    wanted = responses.parse(body)
    if wanted.stream:
        chat_body = responses.chat_body(wanted, body, dispatcher.passes_through)
        asked = dispatcher.resolved(bridge.request(chat_body, dispatcher.passes_through, responses.NAMES))
        wanted.model = asked.model
        translator = ResponseStream(wanted)
        return await unless_disconnected(request, bridged_stream(dispatcher, asked, translator, responses.NAMES))
    forward = dispatcher.forward_once if dispatcher.passes_through else None
    backend = Backend(dispatcher.complete_once, dispatcher.score_once, forward)
    return reply((await unless_disconnected(request, responses.answer(body, backend))).body)
