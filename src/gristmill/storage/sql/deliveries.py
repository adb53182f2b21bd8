"""Deliveries of webhooks in SQL: what is to be told of batches that have ended (an outbox)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, true, update

from gristmill.storage.records import Changes, DeliveryRecord, RecordPage
from gristmill.storage.scope import EVERYTHING, Scope
from gristmill.storage.sql.database import Database
from gristmill.storage.sql.files import select_page
from gristmill.storage.sql.schema import batches, webhook_deliveries
from gristmill.storage.sql.scoped import seen

_KEY = (
    select(batches.c.key_id)
    .where(batches.c.id == webhook_deliveries.c.batch_id, webhook_deliveries.c.target != "")
    .scalar_subquery()
)
_FIELDS = [_KEY if name == "key_id" else webhook_deliveries.c[name] for name in DeliveryRecord.__struct_fields__]
_DELETED_AT_ONCE = 1_000

_PENDING = webhook_deliveries.c.status == "pending"
_UNADDRESSED = (webhook_deliveries.c.target == "", _PENDING)
_NEVER_TRIED = webhook_deliveries.c.attempts == 0


def announce_end(connection: Connection, batch_id: str, changes: Mapping[str, Any]) -> None:
    """In the transaction that ends the batch by ``changes``."""
    webhook = connection.scalar(select(batches.c.webhook).where(batches.c.id == batch_id))
    status = changes["status"]
    event = {
        "event_id": f"evt_{secrets.token_hex(16)}",
        "type": f"batch.{status}",
        "batch_id": batch_id,
        "created_at": changes.get(f"{status}_at") or int(time.time()),
    }
    targets = [(None, "")] + ([(webhook, webhook["target"])] if webhook else [])
    values = [
        event
        | {
            "id": f"whd_{secrets.token_hex(16)}",
            "webhook": to,
            "target": target,
            "status": "pending",
            "attempts": 0,
            "due_at": 0.0,
        }
        for to, target in targets
    ]
    connection.execute(insert(webhook_deliveries), values)


def _record(row: Any) -> DeliveryRecord:
    return msgspec.convert(dict(zip(DeliveryRecord.__struct_fields__, row, strict=True)), DeliveryRecord)


class SqlDeliveries:
    def __init__(self, database: Database, scope: Scope = EVERYTHING) -> None:
        self._database = database
        self._scope = scope

    def _seen(self) -> ColumnElement[bool]:
        """What tells the webhooks of batches that are seen; the server's own is only the server's affair."""
        if self._scope.everything:
            return true()
        of_seen = webhook_deliveries.c.batch_id.in_(select(batches.c.id).where(seen(batches, self._scope)))
        return and_(webhook_deliveries.c.target != "", of_seen)

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        query = select(*_FIELDS).where(webhook_deliveries.c.id == delivery_id, self._seen())
        found = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return _record(found) if found else None

    async def page(
        self, *, after: str | None, limit: int, status: str | None = None, batch_id: str | None = None
    ) -> RecordPage:
        query = select(*_FIELDS).where(self._seen())
        if status is not None:
            query = query.where(webhook_deliveries.c.status == status)
        if batch_id is not None:
            query = query.where(webhook_deliveries.c.batch_id == batch_id)
        found, more = await self._database.read(
            lambda connection: select_page(
                connection, webhook_deliveries, query, self._seen(), after=after, limit=limit, newest_first=True
            )
        )
        return RecordPage([_record(row) for row in found], more)

    async def due(
        self,
        now: float,
        longest_pause: float,
        limit: int,
        busy: Collection[str],
        busy_keys: Collection[str],
        under_way: Collection[int],
    ) -> list[DeliveryRecord]:
        due_at = webhook_deliveries.c.due_at
        query = (
            select(*_FIELDS)
            .where(
                _PENDING,
                or_(due_at <= now, due_at > now + longest_pause),
                webhook_deliveries.c.target.not_in(busy),
                webhook_deliveries.c.seq.not_in(under_way),
            )
            .order_by(due_at, webhook_deliveries.c.seq)
            .limit(limit)
        )
        if busy_keys:
            query = query.where(or_(_KEY.is_(None), _KEY.not_in(busy_keys)))
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [_record(row) for row in found]

    async def record(self, delivery: DeliveryRecord, changes: Changes) -> bool:
        unchanged = (
            webhook_deliveries.c.seq == delivery.seq,
            _PENDING,
            webhook_deliveries.c.attempts == delivery.attempts,
            webhook_deliveries.c.due_at == delivery.due_at,
        )
        statement = update(webhook_deliveries).where(*unchanged).values(**changes)
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount > 0, even_if_full=True
        )

    async def send_again(self, delivery_id: str) -> bool:
        anew = {"status": "pending", "attempts": 0, "due_at": 0.0, "first_attempt_at": None}
        statement = (
            update(webhook_deliveries).where(webhook_deliveries.c.id == delivery_id, self._seen()).values(**anew)
        )
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount > 0, even_if_full=True
        )

    async def drop_unaddressed(self, reason: str) -> int:
        any_there = select(webhook_deliveries.c.seq).where(*_UNADDRESSED).limit(1)
        if await self._database.read(lambda connection: connection.scalar(any_there)) is None:
            # Asked again and again: most often it need not wait for its turn to write.
            return 0
        forget = delete(webhook_deliveries).where(*_UNADDRESSED, _NEVER_TRIED)
        end = update(webhook_deliveries).where(*_UNADDRESSED).values(status="dead", last_error=reason)

        def work(connection: Connection) -> int:
            forgotten = connection.execute(forget).rowcount
            connection.execute(end)
            return forgotten

        return await self._database.write(work, even_if_full=True)

    async def delete_ended(self, before: int) -> int:
        old = (
            select(webhook_deliveries.c.seq)
            .where(~_PENDING, webhook_deliveries.c.created_at < before)
            .limit(_DELETED_AT_ONCE)
        )
        statement = delete(webhook_deliveries).where(webhook_deliveries.c.seq.in_(old))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount, even_if_full=True)
