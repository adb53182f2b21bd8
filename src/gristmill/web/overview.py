"""``/``: all batches."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.web.batch_row import batch_row
from gristmill.web.page import page
from gristmill.web.visitor import host

router = APIRouter()

_LISTED = 100


@router.get("/")
async def overview(request: Request) -> Response:
    batches = host(request).batches
    unfinished = await batches.page(None, _LISTED, ended=False)
    ended = await batches.page(request.query_params.get("after"), _LISTED, ended=True)
    return page(
        "overview",
        here="overview",
        unfinished=[batch_row(batch) for batch in unfinished.data],
        ended=[batch_row(batch) for batch in ended.data],
        more=ended.last_id if ended.has_more else None,
    )
