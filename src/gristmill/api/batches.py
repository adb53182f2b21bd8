"""``/v1/batches``."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from gristmill.api.description import described, page_query
from gristmill.api.exchange import MAX_JSON_BYTES, host, page_limit, read_body, reply
from gristmill.api.idempotency import used_key
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.common import ListPage
from gristmill.wire.json import decode

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_decoder = msgspec.json.Decoder(CreateBatchRequest)


@router.post(
    "",
    summary="Create a batch",
    openapi_extra=described(body=CreateBatchRequest, answer=Batch, keyed=True),
)
async def create(request: Request) -> Response:
    body = await read_body(request, MAX_JSON_BYTES)
    return reply(await host(request).batches.create(decode(_decoder, body), used_key(request, body)))


@router.get(
    "",
    summary="List batches, newest first",
    openapi_extra=described(answer=ListPage[Batch], query=page_query(100, 20)),
)
async def list_batches(request: Request) -> Response:
    limit = page_limit(request, default=20, maximum=100)
    return reply(await host(request).batches.page(request.query_params.get("after"), limit))


@router.get("/{batch_id}", summary="Retrieve a batch", openapi_extra=described(answer=Batch))
async def retrieve(request: Request, batch_id: str) -> Response:
    return reply(await host(request).batches.get(batch_id))


@router.post(
    "/{batch_id}/cancel",
    summary="Cancel a batch, keeping its partial results",
    openapi_extra=described(answer=Batch, also=[409]),
)
async def cancel(request: Request, batch_id: str) -> Response:
    return reply(await host(request).batches.cancel(batch_id))
