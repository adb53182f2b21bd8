"""That a batch is retried by another: told in the transaction that adds the other, or deletes it."""

from __future__ import annotations

from sqlalchemy import Connection, or_, select, update

from gristmill.storage.errors import AlreadyRetried
from gristmill.storage.records import BatchRecord
from gristmill.storage.scope import Scope
from gristmill.storage.sql.schema import batches
from gristmill.storage.sql.scoped import seen


def link_retry(connection: Connection, scope: Scope, batch: BatchRecord) -> None:
    """Where ``batch`` is a retry. Raises AlreadyRetried where one that is still known retries the same batch."""
    if batch.retry_of is None:
        return
    known = select(batches.c.id).where(~batches.c.deleted)
    free = or_(batches.c.retried_by.is_(None), batches.c.retried_by.not_in(known))
    there = (batches.c.id == batch.retry_of, ~batches.c.deleted, seen(batches, scope))
    if connection.execute(update(batches).where(*there, free).values(retried_by=batch.id)).rowcount == 0:
        raise AlreadyRetried(batch.retry_of)


def unlink_retry(connection: Connection, batch_id: str) -> None:
    """The batch is deleted: what it was a retry of may be retried anew."""
    connection.execute(update(batches).where(batches.c.retried_by == batch_id).values(retried_by=None))
