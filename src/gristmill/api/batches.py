"""``/v1/batches``."""

from __future__ import annotations

from typing import Any, cast, get_args

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from gristmill.api.description import described, page_query
from gristmill.api.exchange import LINES, MAX_JSON_BYTES, begun, host, page_limit, read_body, reply
from gristmill.api.idempotency import used_key
from gristmill.batches.results.result_lines import Kind, result_lines
from gristmill.wire.batch import Batch, ChangeBatchRequest, CreateBatchRequest, OutputLine
from gristmill.wire.common import ListPage
from gristmill.wire.errors import invalid_value
from gristmill.wire.json import decode

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_decoder = msgspec.json.Decoder(CreateBatchRequest)
_KIND = {"type": "string", "enum": list(get_args(Kind)), "default": "output"}
_RESULTS_QUERY: dict[str, dict[str, Any]] = {"kind": _KIND, "after": {"type": "string"}}
_change_decoder = msgspec.json.Decoder(ChangeBatchRequest)


@router.post(
    "",
    summary="Create a batch",
    openapi_extra=described(body=CreateBatchRequest, answer=Batch, keyed=True, limited=True),
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


@router.post(
    "/{batch_id}",
    summary="Change the priority of a batch that has rows to run",
    openapi_extra=described(body=ChangeBatchRequest, answer=Batch, also=[409]),
)
async def change(request: Request, batch_id: str) -> Response:
    """At once, also where it runs."""
    body = decode(_change_decoder, await read_body(request, MAX_JSON_BYTES))
    return reply(await host(request).batches.set_priority(batch_id, body.priority))


@router.post(
    "/{batch_id}/pause",
    summary="Pause a batch; its status stays",
    openapi_extra=described(answer=Batch, also=[409]),
)
async def pause(request: Request, batch_id: str) -> Response:
    """What is in flight has a minute to finish. The window goes on. Pausing a paused batch changes nothing."""
    return reply(await host(request).batches.pause(batch_id))


@router.post(
    "/{batch_id}/resume",
    summary="Go on with a paused batch",
    openapi_extra=described(answer=Batch, also=[409]),
)
async def resume(request: Request, batch_id: str) -> Response:
    """Changes nothing where the batch is not paused."""
    return reply(await host(request).batches.resume(batch_id))


@router.post(
    "/{batch_id}/retry",
    summary="Ask the rows of an ended batch again that have no answer, in a new batch",
    openapi_extra=described(answer=Batch, keyed=True, limited=True, also=[409]),
)
async def retry(request: Request, batch_id: str) -> Response:
    """Failed rows, and rows that never ran. Where the batch was retried before, those that its last retry has not
    answered; where that has not ended, it is the answer."""
    return reply(await host(request).batches.retry(batch_id, used_key(request, b"")))


@router.get(
    "/{batch_id}/results",
    summary="The lines of a batch's output or error file so far, and those of its retries",
    openapi_extra=described(media={LINES: OutputLine}, query=_RESULTS_QUERY),
)
async def results(request: Request, batch_id: str) -> Response:
    """Before the batch's end, those of the rows that have run; after it, what is in its files. With retries, the output
    lines of all of them one after another, and the error lines of the last. In input order for each batch; `after` is
    the `custom_id` of the last line that you have."""
    given = host(request)
    kind = request.query_params.get("kind", "output")
    if kind not in get_args(Kind):
        raise invalid_value("kind", kind, "'output' and 'error'")
    record = await given.batches.record(batch_id)
    lines = result_lines(given.storage, record, cast(Kind, kind), request.query_params.get("after"))
    return StreamingResponse(await begun(lines), media_type=LINES)
