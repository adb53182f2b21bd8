"""The lease on a batch, checked in the transaction that stores what only its owner may store."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, case, null, select

from gristmill.storage.errors import LeaseLost
from gristmill.storage.records import Lease
from gristmill.storage.sql.clock import clock
from gristmill.storage.sql.schema import batches

#: What was last told of a batch, as long as the lease lasts; also of the pause after it, with nobody's lease.
REPORT = case((batches.c.lease_until > clock(), batches.c.report), else_=null()).label("report")


def held(lease: Lease) -> ColumnElement[bool]:
    """The batch, where the lease on it is still this one: that it has run out does not matter while nobody else has
    claimed it."""
    return and_(
        batches.c.seq == lease.batch_seq,
        batches.c.lease_owner == lease.owner,
        batches.c.lease_generation == lease.generation,
    )


def require_lease(connection: Connection, lease: Lease) -> None:
    """Until the transaction ends, nobody else claims the batch. Raises LeaseLost, which undoes the transaction."""
    if connection.scalar(select(batches.c.seq).where(held(lease)).with_for_update()) is None:
        raise LeaseLost(lease.owner)
