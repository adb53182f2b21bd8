"""What a scope means in SQL: every look-up of an object by its id asks for ``seen``, every new object is ``owned``."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, exists, false, func, or_, select, true

from gristmill.storage.errors import OverLimit
from gristmill.storage.records import TERMINAL_STATUSES
from gristmill.storage.scope import Scope
from gristmill.storage.sql.schema import access_keys, batches, files


def seen(table: Table, scope: Scope) -> ColumnElement[bool]:
    """The rows of ``table`` that are there for ``scope``. Another's is filtered by the statement that would find it, so
    that it takes the same steps as one that nobody has."""
    if scope.everything:
        return true()
    return false() if scope.key_id is None else table.c.key_id == scope.key_id


def readable(reader: str | None) -> ColumnElement[bool]:
    """Files that a batch of the key ``reader`` may read: its own; all for an admin's, and where there are no keys."""
    if reader is None:
        return true()
    admin = exists().where(access_keys.c.id == reader, access_keys.c.role == "admin")
    return or_(files.c.key_id == reader, admin)


def owned(scope: Scope, key_id: str | None) -> str | None:
    """Whose a new object is; ``key_id`` is what its record says, which counts for the server alone."""
    return key_id if scope.key_id is None else scope.key_id


def check_bytes(connection: Connection, scope: Scope, more: int) -> None:
    """In the transaction that adds a file of ``more`` bytes. Raises OverLimit."""
    if scope.limits.bytes is None:
        return
    kept = select(func.coalesce(func.sum(files.c.bytes), 0)).where(files.c.key_id == scope.key_id, ~files.c.deleted)
    used = connection.scalar(kept) or 0
    if used + more > scope.limits.bytes:
        raise OverLimit("bytes", scope.limits.bytes, used, more)


def check_batches(connection: Connection, scope: Scope) -> None:
    """In the transaction that adds a batch. Raises OverLimit."""
    if scope.limits.batches is None:
        return
    query = select(func.count()).where(batches.c.key_id == scope.key_id, batches.c.status.not_in(TERMINAL_STATUSES))
    used = connection.scalar(query) or 0
    if used >= scope.limits.batches:
        raise OverLimit("batches", scope.limits.batches, used, 1)
