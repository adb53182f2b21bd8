"""A host as one caller has it: there is no other way from a request to what is stored."""

from __future__ import annotations

from gristmill.batches.host import BatchHost
from gristmill.batches.measured import measured_batches
from gristmill.batches.message_batches import MessageBatches
from gristmill.batches.service import BatchService
from gristmill.notify.webhooks import WebhookService
from gristmill.storage.scope import Scope
from gristmill.telemetry.batch_series import BatchSeries


class ScopedHost:
    """Whatever is asked for by an id, or listed, is in the ``scope`` of the caller; what is made belongs to it."""

    def __init__(self, host: BatchHost, scope: Scope) -> None:
        self._host = host
        self.settings = host.settings
        self.dispatcher = host.dispatcher
        self.storage = host.storage.seen_by(scope)
        self.batches = BatchService(
            self.storage, host.supervisor, lambda: host.supervisor.heartbeat.served, host.webhook_hosts
        )
        self.message_batches = MessageBatches(self.storage, self.batches)
        self.webhooks = WebhookService(self.storage.metadata.deliveries, host.notifier)

    async def measured_batches(self) -> BatchSeries:
        """Raises what storage raises."""
        return await measured_batches(self.storage, self._host.supervisor)
