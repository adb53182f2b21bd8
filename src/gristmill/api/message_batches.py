"""``/v1/messages/batches``, Anthropic's Message Batches API."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from gristmill.api.description import Schema, described
from gristmill.api.exchange import LINES, begun, check_json, host, page_limit, reply
from gristmill.api.idempotency import idempotency_key, used_key
from gristmill.api.messages import versioned
from gristmill.batches import message_results
from gristmill.batches.incoming import DEFAULT_BATCH_LIFETIME
from gristmill.batches.message_batches import input_file_id, new_name
from gristmill.batches.message_input import MessageInput
from gristmill.inference import messages
from gristmill.storage.errors import UnknownCursor
from gristmill.storage.records import file_blob
from gristmill.wire.errors import ApiError, clip
from gristmill.wire.message_batches import (
    CreateMessageBatchRequest,
    MessageBatch,
    MessageBatchDeleted,
    MessageBatchLine,
    MessageBatchPage,
)
from gristmill.wire.messages import MessageErrorResponse

router = APIRouter(prefix="/v1/messages/batches", tags=["message batches"], dependencies=versioned)

_PAGE_QUERY: dict[str, Schema] = {
    "after_id": {"type": "string"},
    "before_id": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20},
}


@router.post(
    "",
    summary="Create a message batch",
    openapi_extra=described(
        body=CreateMessageBatchRequest,
        answer=MessageBatch,
        error=MessageErrorResponse,
        keyed=True,
        limited=True,
        also=[404],
    ),
)
async def create(request: Request) -> Response:
    """What is wrong with the `params` of a request is that request's own result, but for the model and `stream`."""
    check_json(request)
    batch_host = host(request)
    batch_host.batches.endpoint(messages.PATH)
    storage, name = batch_host.storage, new_name()
    hashing = None if idempotency_key(request) is None else hashlib.sha256()
    given = MessageInput(batch_host.dispatcher.models, batch_host.settings.limits)
    async with storage.new_blobs.begin(file_blob(input_file_id(name))) as write:
        size = await write(given.lines(_received(request, given, hashing)))
        key = used_key(request, b"" if hashing is None else hashing.digest())
        created = await batch_host.message_batches.create(name, given.total, size, DEFAULT_BATCH_LIFETIME, key)
    return reply(created)


@router.get(
    "",
    summary="List message batches, newest first",
    openapi_extra=described(answer=MessageBatchPage, error=MessageErrorResponse, query=_PAGE_QUERY),
)
async def list_message_batches(request: Request) -> Response:
    query = request.query_params
    after, before = query.get("after_id"), query.get("before_id")
    if after is not None and before is not None:
        raise ApiError(400, "Only one of 'after_id' and 'before_id' is possible.", param="before_id")
    limit = page_limit(request, default=20, maximum=1000)
    try:
        return reply(await host(request).message_batches.page(after, before, limit, _results_url(request)))
    except UnknownCursor:
        name, given = ("after_id", after) if before is None else ("before_id", before)
        message = f"Invalid '{name}': there is no message batch with the id '{clip(given or '')}'."
        raise ApiError(400, message, param=name, code="invalid_value") from None


@router.get(
    "/{message_batch_id}",
    summary="Retrieve a message batch",
    openapi_extra=described(answer=MessageBatch, error=MessageErrorResponse),
)
async def retrieve(request: Request, message_batch_id: str) -> Response:
    return reply(await host(request).message_batches.get(message_batch_id, _results_url(request)))


@router.post(
    "/{message_batch_id}/cancel",
    summary="Cancel a message batch, keeping its partial results",
    openapi_extra=described(answer=MessageBatch, error=MessageErrorResponse, also=[409]),
)
async def cancel(request: Request, message_batch_id: str) -> Response:
    return reply(await host(request).message_batches.cancel(message_batch_id, _results_url(request)))


@router.delete(
    "/{message_batch_id}",
    summary="Delete a message batch that has ended, with its input and results",
    openapi_extra=described(answer=MessageBatchDeleted, error=MessageErrorResponse),
)
async def delete(request: Request, message_batch_id: str) -> Response:
    return reply(await host(request).message_batches.delete(message_batch_id))


@router.get(
    "/{message_batch_id}/results",
    summary="The results of a message batch that has ended, one a line",
    openapi_extra=described(media={LINES: MessageBatchLine}, error=MessageErrorResponse),
)
async def results(request: Request, message_batch_id: str) -> Response:
    storage = host(request).storage
    record = await host(request).message_batches.record(message_batch_id)
    lines = message_results.results(storage, await message_results.files_of(storage, record, message_batch_id))
    return StreamingResponse(await begun(lines), media_type=LINES)


async def _received(
    request: Request, given: MessageInput, hashing: hashlib._Hash | None
) -> AsyncGenerator[bytes, None]:
    """The body; what ``given`` holds of it counts as memory for bodies. Raises ApiError 503 where there is no room."""
    held, taken = request.scope["held_body"], 0
    async for chunk in request.stream():
        if hashing is not None:
            hashing.update(chunk)
        yield chunk
        if given.held > taken:
            held.take(given.held - taken)
            taken = given.held


def _results_url(request: Request) -> str:
    """With ``{}`` in the place of the id; under the address by which this server was asked."""
    root = str(request.base_url).replace("{", "").replace("}", "")
    return f"{root}v1/messages/batches/{{}}/results"
