"""What a scope means in SQL: every look-up of an object by its id asks for ``seen``, every new object is ``owned``."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, exists, false, func, or_, select, true

from gristmill.storage.errors import OverLimit
from gristmill.storage.records import TERMINAL_STATUSES
from gristmill.storage.scope import Scope
from gristmill.storage.sql.schema import access_keys, batches, files, upload_parts, uploads


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


def used_bytes(connection: Connection, key_id: str | None, but_upload: str = "") -> int:
    """Of all files of a key, and of the parts of its uploads, but of one whose parts will be a file."""
    kept = select(func.coalesce(func.sum(files.c.bytes), 0)).where(files.c.key_id == key_id, ~files.c.deleted)
    parts = (
        select(func.coalesce(func.sum(upload_parts.c.bytes), 0))
        .join(uploads, uploads.c.id == upload_parts.c.upload_id)
        .where(uploads.c.key_id == key_id, uploads.c.status == "pending", uploads.c.id != but_upload)
    )
    return int(connection.scalar(kept) or 0) + int(connection.scalar(parts) or 0)


def check_bytes(connection: Connection, scope: Scope, more: int, but_upload: str = "") -> None:
    """In the transaction that adds a file, or a part of one, of ``more`` bytes. Raises OverLimit."""
    limit = scope.limits.bytes
    if limit is not None and (used := used_bytes(connection, scope.key_id, but_upload)) + more > limit:
        raise OverLimit("bytes", limit, used, more)


def enqueued_rows(connection: Connection, key_id: str | None, but_batch: str = "") -> int:
    """Of a key's batches that have not ended, without result."""
    left = func.coalesce(func.sum(batches.c.total - batches.c.completed - batches.c.failed), 0)
    unfinished = (batches.c.key_id == key_id, batches.c.status.not_in(TERMINAL_STATUSES), batches.c.id != but_batch)
    return int(connection.scalar(select(left).where(*unfinished)) or 0)


def check_batch(connection: Connection, scope: Scope, rows: int) -> None:
    """In the transaction that adds a batch of ``rows``, 0 where they have not been counted. Raises OverLimit."""
    most = scope.limits.batches
    if most is not None:
        query = select(func.count()).where(batches.c.key_id == scope.key_id, batches.c.status.not_in(TERMINAL_STATUSES))
        if (used := connection.scalar(query) or 0) >= most:
            raise OverLimit("batches", most, used, 1)
    limit = scope.limits.rows
    if limit is not None and rows and (used := enqueued_rows(connection, scope.key_id)) + rows > limit:
        raise OverLimit("rows", limit, used, rows)
