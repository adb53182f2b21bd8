"""``/v1/webhook_deliveries``: how the events of batches that ended were delivered."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from gristmill.api.description import described, page_query
from gristmill.api.exchange import host, page_limit, reply
from gristmill.notify.webhooks import STATUSES
from gristmill.wire.common import ListPage
from gristmill.wire.webhooks import WebhookDelivery

router = APIRouter(prefix="/v1/webhook_deliveries", tags=["webhook_deliveries"])


@router.get(
    "",
    summary="List deliveries of webhooks, newest first",
    openapi_extra=described(
        answer=ListPage[WebhookDelivery],
        query=page_query(100, 20)
        | {"status": {"type": "string", "enum": list(STATUSES)}, "batch_id": {"type": "string"}},
    ),
)
async def list_deliveries(request: Request) -> Response:
    limit = page_limit(request, default=20, maximum=100)
    given = request.query_params
    page = host(request).webhooks.page(given.get("after"), limit, given.get("status"), given.get("batch_id"))
    return reply(await page)


@router.get("/{delivery_id}", summary="Retrieve a delivery", openapi_extra=described(answer=WebhookDelivery))
async def retrieve(request: Request, delivery_id: str) -> Response:
    return reply(await host(request).webhooks.get(delivery_id))


@router.post(
    "/{delivery_id}/resend",
    summary="Send an event again, also one that was given up",
    openapi_extra=described(answer=WebhookDelivery),
)
async def resend(request: Request, delivery_id: str) -> Response:
    return reply(await host(request).webhooks.resend(delivery_id))
