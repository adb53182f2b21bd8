"""``/v1/batches``."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from gristmill.api.exchange import host, page_limit, read_json, reply
from gristmill.api.idempotency import used_key
from gristmill.wire.batch import CreateBatchRequest

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_decoder = msgspec.json.Decoder(CreateBatchRequest)


@router.post("", summary="Create a batch")
async def create(request: Request) -> Response:
    wanted = await read_json(request, _decoder)
    return reply(await host(request).batches.create(wanted, used_key(request, wanted)))


@router.get("", summary="List batches, newest first")
async def list_batches(request: Request) -> Response:
    limit = page_limit(request, default=20, maximum=100)
    return reply(await host(request).batches.page(request.query_params.get("after"), limit))


@router.get("/{batch_id}", summary="Retrieve a batch")
async def retrieve(request: Request, batch_id: str) -> Response:
    return reply(await host(request).batches.get(batch_id))


@router.post("/{batch_id}/cancel", summary="Cancel a batch, keeping its partial results")
async def cancel(request: Request, batch_id: str) -> Response:
    return reply(await host(request).batches.cancel(batch_id))
