"""The lease on a batch, checked in the transaction that stores what only its owner may store."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select

from gristmill.storage.errors import LeaseLost
from gristmill.storage.sql.schema import batches


def require_lease(connection: Connection, of: ColumnElement[bool], owner: str) -> None:
    """Raises LeaseLost, which undoes the transaction, where ``owner`` does not hold the batch ``of`` picks."""
    held = select(batches.c.seq).where(of, batches.c.lease_owner == owner)
    if connection.scalar(held) is None:
        raise LeaseLost(owner)
