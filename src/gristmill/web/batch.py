"""``/batches/ID``: one batch."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.web.batch_row import batch_row
from gristmill.web.page import page
from gristmill.web.visitor import host

router = APIRouter(prefix="/batches")


@router.get("/{batch_id}")
async def batch_page(request: Request, batch_id: str) -> Response:
    row = batch_row(await host(request).batches.get(batch_id))
    return page("batch", here="batch", row=row)
