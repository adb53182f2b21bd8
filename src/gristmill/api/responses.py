"""``/v1/responses``, at once or streamed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.api.answering import answered, backend, forwarded
from gristmill.api.description import described
from gristmill.api.disconnect import unless_disconnected
from gristmill.api.exchange import caller, host, read_body, reply
from gristmill.api.streaming import EVENTS, bridged_stream
from gristmill.dispatch.fair_share import Flow
from gristmill.inference import bridge, forwarding, responses
from gristmill.inference.answer import Backend
from gristmill.inference.background_responses import BackgroundResponses, asks_for_background
from gristmill.inference.recent_items import OwnItems, RecentItems
from gristmill.inference.responses_stream import ResponseStream
from gristmill.wire.errors import ApiError
from gristmill.wire.response_events import ResponseEvent
from gristmill.wire.responses import DeletedResponse, ResponseObject, ResponseRequest

#: All together share the engine like one batch.
_FLOW = Flow("responses in the background")

router = APIRouter(prefix="/v1", tags=["responses"])


@router.post(
    "/responses",
    summary="Response",
    openapi_extra=described(
        body=ResponseRequest, answer=ResponseObject, media={EVENTS: ResponseEvent}, asks_engine=True
    ),
)
async def create_response(request: Request) -> Response:
    """Nothing is kept to be looked up or continued, but what is made in the background, or by a server that it passes
    through to."""
    dispatcher = host(request).dispatcher
    body = await read_body(request)
    if asks_for_background(body):
        background = _background(request)
        ask = dispatcher.asker(background.stop, _FLOW)
        return reply(background.start(body, Backend(ask, dispatcher.forwards), caller(request).scope))
    if dispatcher.forwards(responses.PATH):
        return await forwarded(request, forwarding.response_request(responses.PATH, body))
    recent = _recent(request)
    wanted = responses.parse(body, recent)
    if wanted.stream:
        chat_body = responses.chat_body(wanted, body, dispatcher.passes_through)
        asked = dispatcher.resolved(bridge.request(chat_body, dispatcher.passes_through, responses.NAMES))
        wanted.model = asked.model
        translator = ResponseStream(wanted) if wanted.store is False else ResponseStream(wanted, recent.remember)
        return await unless_disconnected(request, bridged_stream(dispatcher, asked, translator, responses.NAMES))
    return await answered(request, responses.answer(body, backend(request), recent))


@router.get(
    "/responses/{response_id}",
    summary="A response made in the background",
    openapi_extra=described(answer=ResponseObject, also=[400]),
)
async def retrieve_response(request: Request, response_id: str) -> Response:
    """Ask again while it is `queued` or `in_progress`; it cannot be streamed."""
    if request.query_params.get("stream") == "true":
        message = "A response in the background cannot be streamed here: ask for it until it has ended."
        raise ApiError(400, message, param="stream", code="unsupported_parameter")
    return reply(_background(request).get(response_id, caller(request).scope))


@router.post(
    "/responses/{response_id}/cancel",
    summary="Cancel a response made in the background",
    openapi_extra=described(answer=ResponseObject),
)
async def cancel_response(request: Request, response_id: str) -> Response:
    """One that has ended stays as it is."""
    return reply(_background(request).cancel(response_id, caller(request).scope))


@router.delete(
    "/responses/{response_id}",
    summary="Forget a response made in the background",
    openapi_extra=described(answer=DeletedResponse),
)
async def delete_response(request: Request, response_id: str) -> Response:
    """One that is still being made is given up."""
    return reply(_background(request).delete(response_id, caller(request).scope))


def _background(request: Request) -> BackgroundResponses:
    found: BackgroundResponses = request.app.state.background_responses
    return found


def _recent(request: Request) -> OwnItems:
    found: RecentItems = request.app.state.recent_items
    return found.of(caller(request).key_id)
