"""What can be asked of webhooks: whom a batch may tell, how deliveries went, and to send one again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.notify import target
from gristmill.notify.addresses import AllowedHosts
from gristmill.notify.notifier import Notifier
from gristmill.notify.signature import BadSecret, check_secret, new_secret
from gristmill.notify.target import TargetRefused
from gristmill.storage.deliveries_protocol import Deliveries
from gristmill.storage.records import DeliveryRecord, WebhookRecord
from gristmill.user_error import UserError
from gristmill.wire.common import ListPage
from gristmill.wire.errors import ApiError, clip, invalid_value, not_found
from gristmill.wire.webhooks import WebhookDelivery, WebhookRequest

STATUSES = ("pending", "delivered", "dead")


class WebhookSettings(NamedTuple):
    """The server's own webhook, told of every batch, and the hosts that webhooks may go to besides the public ones:
    see ``AllowedHosts.of``."""

    url: str | None = None
    secret: str | None = None
    allowed_hosts: Sequence[str] = ()

    def __repr__(self) -> str:
        return "WebhookSettings()"

    def allowed(self) -> AllowedHosts:
        """Raises UserError."""
        return AllowedHosts.of(self.allowed_hosts)

    def own(self) -> WebhookRecord | None:
        """Raises UserError, in a sentence that says what to do."""
        if self.url is None:
            return None
        if not self.secret:
            raise UserError(
                "A webhook needs a secret that signs what is sent: set GRISTMILL_WEBHOOK_SECRET, or name a file that "
                "holds it with --webhook-secret-file. 'gristmill webhooks secret' makes one."
            )
        try:
            found = target.read(self.url)
            target.check(found, self.allowed())
            return WebhookRecord(found.url, check_secret(self.secret), found.origin)
        except TargetRefused as refused:
            raise UserError(f"The webhook {target.shown(self.url)} cannot be used: {refused}") from None
        except BadSecret as bad:
            raise UserError(f"The webhook's secret cannot be used: {bad}") from None


def webhook_of(request: WebhookRequest, allowed: AllowedHosts) -> WebhookRecord:
    """Of a batch, with a new secret where none is given. Raises ApiError."""
    try:
        found = target.read(request.url)
        target.check(found, allowed)
    except TargetRefused as refused:
        message = f"Invalid 'webhook.url': {refused}"
        raise ApiError(400, message, param="webhook.url", code="invalid_value") from None
    try:
        secret = new_secret() if request.secret is None else check_secret(request.secret)
    except BadSecret as bad:
        message = f"Invalid 'webhook.secret': {bad}"
        raise ApiError(400, message, param="webhook.secret", code="invalid_value") from None
    return WebhookRecord(found.url, secret, found.origin)


class WebhookService:
    def __init__(self, deliveries: Deliveries, notifier: Notifier) -> None:
        self._deliveries = deliveries
        self._notifier = notifier

    async def page(
        self, after: str | None, limit: int, status: str | None = None, batch_id: str | None = None
    ) -> ListPage[WebhookDelivery]:
        """Newest first. Raises UnknownCursor, and ApiError for a status that there is not."""
        if status is not None and status not in STATUSES:
            raise invalid_value("status", status, ", ".join(f"'{each}'" for each in STATUSES))
        page = await self._deliveries.page(after=after, limit=limit, status=status, batch_id=batch_id)
        data = [present(record) for record in page.records]
        first, last = (data[0].id, data[-1].id) if data else ("", "")
        return ListPage(data, first, last, page.has_more)

    async def get(self, delivery_id: str) -> WebhookDelivery:
        """Raises ApiError 404."""
        record = await self._deliveries.get(delivery_id)
        if record is None:
            raise not_found(f"No webhook delivery found with id '{clip(delivery_id)}'.")
        return present(record)

    async def resend(self, delivery_id: str) -> WebhookDelivery:
        """At once, and again for as long as a new one, with the same event id. Raises ApiError 404."""
        await self._deliveries.send_again(delivery_id)
        found = await self.get(delivery_id)
        self._notifier.wake()
        return found


def present(record: DeliveryRecord) -> WebhookDelivery:
    return WebhookDelivery(
        id=record.id,
        event_id=record.event_id,
        type=record.type,
        batch_id=record.batch_id,
        created_at=record.created_at,
        url=None if record.webhook is None else target.shown(record.webhook.url),
        status=record.status,  # type: ignore[arg-type]
        attempts=record.attempts,
        next_attempt_at=max(math.ceil(record.due_at), record.created_at) if record.status == "pending" else None,
        last_attempt_at=record.last_attempt_at,
        last_status=record.last_status,
        last_error=record.last_error,
    )
