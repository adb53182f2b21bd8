"""Webhooks: the event that is sent, whom a batch asks to tell, and how its delivery went."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

DeliveryStatus = Literal["pending", "delivered", "dead"]


class WebhookEventData(msgspec.Struct):
    #: Of the batch.
    id: str


class WebhookEvent(msgspec.Struct):
    """As OpenAI sends it; ``type`` is batch.completed, batch.failed, batch.expired or batch.cancelled. ``created_at``
    is when the batch ended."""

    id: str
    created_at: int
    type: str
    data: WebhookEventData
    object: str = "event"


class WebhookRequest(msgspec.Struct, forbid_unknown_fields=True):
    """In the request that creates a batch. Without a ``secret`` the answer has a new one."""

    url: Annotated[str, msgspec.Meta(max_length=2048)]
    secret: Annotated[str, msgspec.Meta(max_length=128)] | None = None

    def __repr__(self) -> str:
        return "WebhookRequest()"

    __str__ = __repr__


class BatchWebhook(msgspec.Struct):
    """``url`` without its query, which may hold a password. ``secret`` only in the answer to the request that created
    the batch, where it did not give one."""

    url: str
    secret: str | msgspec.UnsetType = msgspec.UNSET


class WebhookDelivery(msgspec.Struct):
    """One event's delivery to one webhook; times are Unix seconds. ``url`` is null for the server's own webhook."""

    id: str
    #: Sent as ``webhook-id``, the same at each attempt.
    event_id: str
    type: str
    batch_id: str
    created_at: int
    url: str | None
    status: DeliveryStatus
    #: Since the end of the batch, or since it was last asked to be sent again.
    attempts: int
    #: Null where there is none to come.
    next_attempt_at: int | None
    last_attempt_at: int | None
    #: HTTP status of the last answer; null where there was none.
    last_status: int | None
    last_error: str | None
    object: str = "webhook_delivery"
