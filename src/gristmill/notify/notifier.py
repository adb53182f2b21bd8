"""Delivering what is due, for ever: many targets side by side, few requests to each, nothing in memory but those."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import NamedTuple, Protocol

import msgspec

from gristmill.notify.schedule import LONGEST_PAUSE, decide
from gristmill.notify.sender import SendOutcome
from gristmill.notify.signature import signed_headers
from gristmill.storage.deliveries_protocol import Deliveries
from gristmill.storage.errors import Unreachable
from gristmill.storage.records import Changes, DeliveryRecord, WebhookRecord
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import WEBHOOK_DELIVERIES
from gristmill.wire.json import encode_ascii
from gristmill.wire.webhooks import WebhookEvent, WebhookEventData

log = get_logger(__name__)

#: Attempts at a time: of all targets, for the batches of one access key, and to one target.
PLACES = 64
PLACES_A_KEY = 16
PLACES_A_TARGET = 2
#: So long one server has to deliver before another tries; longer than any attempt takes.
CLAIM_SECONDS = 60.0
#: How long a batch may have ended before that is seen.
LOOK_SECONDS = 1.0
#: Seconds before an outcome that storage refused is stored again; doubled up to the longest.
FIRST_STORE_PAUSE, LONGEST_STORE_PAUSE = 0.5, 30.0

_NO_WEBHOOK = "The server has no webhook any more."


class Sends(Protocol):
    async def send(self, url: str, headers: dict[str, str], body: bytes) -> SendOutcome: ...


class _UnderWay(NamedTuple):
    delivery: DeliveryRecord
    task: asyncio.Task[None]


class Notifier:
    """``own`` is the server's webhook. What is to be delivered is in storage; a delivery is repeated, with the same id,
    where a kill comes between it and its record. ``shared``: other servers deliver what is in storage, too."""

    def __init__(
        self, deliveries: Deliveries, sender: Sends, own: WebhookRecord | None = None, shared: bool = False
    ) -> None:
        self._shared = shared
        self._deliveries = deliveries
        self._sender = sender
        self._own = own
        self._under_way: dict[int, _UnderWay] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until ``stop``."""
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._start_due()
            except Unreachable as error:
                # Who looks for batches tells it less often.
                log.debug("cannot look for webhooks to deliver", reason=str(error))
            except Exception as error:
                log.error("cannot look for webhooks to deliver", exc_info=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def stop(self, grace: float) -> None:
        """Begin nothing more; what is under way has ``grace`` seconds, and is delivered again another time if it needs
        longer."""
        self._stopping.set()
        self.wake()
        tasks = [each.task for each in self._under_way.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _start_due(self) -> None:
        if self._own is None:
            await self._deliveries.drop_unaddressed(_NO_WEBHOOK)
        while (free := PLACES - len(self._under_way)) > 0 and not self._stopping.is_set():
            targets = Counter(each.delivery.target for each in self._under_way.values())
            keys = Counter(each.delivery.key_id for each in self._under_way.values() if each.delivery.key_id)
            busy = [target for target, count in targets.items() if count >= PLACES_A_TARGET]
            busy_keys = [key for key, count in keys.items() if count >= PLACES_A_KEY]
            if self._own is None:
                busy.append("")
            found = await self._deliveries.due(time.time(), LONGEST_PAUSE, free, busy, busy_keys, list(self._under_way))
            if not found or self._stopping.is_set():
                return
            for each in found:
                target, key = each.target, each.key_id
                if targets[target] < PLACES_A_TARGET and (not key or keys[key] < PLACES_A_KEY):
                    if (delivery := await self._claimed(each)) is None:
                        continue
                    if self._stopping.is_set():
                        return
                    targets[target] += 1
                    keys.update([key] if key else [])
                    self._start(delivery)

    async def _claimed(self, delivery: DeliveryRecord) -> DeliveryRecord | None:
        """The delivery, for this server alone for a while; None where another was first."""
        if not self._shared:
            return delivery
        due_at = time.time() + CLAIM_SECONDS
        if not await self._deliveries.record(delivery, {"due_at": due_at}):
            return None
        return msgspec.structs.replace(delivery, due_at=due_at)

    def _start(self, delivery: DeliveryRecord) -> None:
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook {delivery.id}")
        self._under_way[delivery.seq] = _UnderWay(delivery, task)
        task.add_done_callback(lambda _: self._end(delivery))

    def _end(self, delivery: DeliveryRecord) -> None:
        del self._under_way[delivery.seq]
        self.wake()

    async def _deliver(self, delivery: DeliveryRecord) -> None:
        webhook = delivery.webhook or self._own
        assert webhook is not None
        try:
            outcome = await self._attempt(delivery, webhook)
        except Exception as error:
            # A defect, or a clock that no calendar has: it is tried again like any other failure.
            log.error("a webhook failed unexpectedly", delivery=delivery.id, exc_info=error)
            outcome = SendOutcome(None, f"It could not be sent: {type(error).__name__}.")
        await self._record(delivery, outcome, webhook.target)

    async def _attempt(self, delivery: DeliveryRecord, webhook: WebhookRecord) -> SendOutcome:
        body = event_body(delivery)
        headers = signed_headers(webhook.secret, delivery.event_id, body.decode(), time.time())
        return await self._sender.send(webhook.url, headers, body)

    async def _record(self, delivery: DeliveryRecord, outcome: SendOutcome, target: str) -> None:
        """Until it is done: one that was delivered and is still pending would be delivered again and again."""
        changes, kind = after_attempt(delivery, outcome, time.time(), random.random())
        WEBHOOK_DELIVERIES[kind].inc()
        what = {"delivery": delivery.id, "batch": delivery.batch_id, "target": target, "attempt": changes["attempts"]}
        match kind:
            case "delivered":
                log.info("webhook delivered", **what)
            case "failed":
                pause = round(changes["due_at"] - time.time())
                log.warning("webhook failed", **what, reason=outcome.error, again_in_seconds=pause)
            case "dead":
                log.error("webhook given up", **what, reason=outcome.error)
        pause = FIRST_STORE_PAUSE
        while True:
            try:
                await self._deliveries.record(delivery, changes)
                return
            except Exception as error:
                log.error("cannot store what came of a webhook", delivery=delivery.id, exc_info=error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_STORE_PAUSE)


def event_body(delivery: DeliveryRecord) -> bytes:
    """The same bytes at each attempt."""
    data = WebhookEventData(delivery.batch_id)
    return encode_ascii(WebhookEvent(delivery.event_id, delivery.created_at, delivery.type, data))


def after_attempt(delivery: DeliveryRecord, outcome: SendOutcome, now: float, jitter: float) -> tuple[Changes, str]:
    """What is stored of an attempt, and what it counts as: delivered, failed or dead."""
    tried = msgspec.structs.replace(
        delivery,
        attempts=delivery.attempts + 1,
        first_attempt_at=delivery.first_attempt_at or int(now),
        last_attempt_at=int(now),
        last_status=outcome.status,
        last_error=outcome.error,
    )
    next_ = decide(outcome.status, tried.attempts, now - (tried.first_attempt_at or now), outcome.retry_after, jitter)
    names = ("attempts", "first_attempt_at", "last_attempt_at", "last_status", "last_error")
    changes: Changes = {name: getattr(tried, name) for name in names}
    changes |= {"status": next_.status, "due_at": now + next_.pause}
    return changes, "failed" if next_.status == "pending" else next_.status
