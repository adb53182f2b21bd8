"""What PostgreSQL says is wrong, by its codes (SQLSTATE), as what a person or this program can do about it."""

from __future__ import annotations

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from gristmill.storage.errors import DiskFull, StorageError, Unreachable


class Passing(Unreachable):
    """It may well be over in a moment; nothing was stored."""


class ConnectionLost(Passing):
    """The connection broke, or there was none; what was sent last may have been done."""


STANDBY = (
    "The database cannot be written, it is read-only or a standby: name the primary, or all its servers and "
    "target_session_attrs=read-write in the URL."
)
#: Another transaction was in the way, or there is no room for one more of us now.
_IN_THE_WAY = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.TooManyConnections,
    errors.CannotConnectNow,
)
#: The server said so before it closed the connection.
_CLOSED = (errors.AdminShutdown, errors.CrashShutdown, errors.IdleInTransactionSessionTimeout)


def clear_error(error: DBAPIError | psycopg.Error) -> StorageError | None:
    """None for what says that this program is wrong, or that it would store something twice."""
    found: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    text = _first_line(found)
    if isinstance(found, errors.DiskFull):
        return DiskFull(f"The database server has no room ({text}): free space on its disk.")
    if isinstance(found, errors.ReadOnlySqlTransaction):
        return StorageError(STANDBY)
    if isinstance(found, errors.InsufficientPrivilege):
        return StorageError(
            f"The database's user has not the rights it needs ({text}): make it the owner of the database, or grant it "
            "CREATE on the database and on the schema of its tables."
        )
    if isinstance(found, errors.QueryCanceled):
        return StorageError(f"The database server takes too long ({text}): see what it is busy with.")
    if isinstance(found, errors.TooManyConnections):
        return Passing(f"The database server has no connection left ({text}): raise its max_connections.")
    if isinstance(found, _IN_THE_WAY):
        return Passing(f"The database server is busy ({text}): see what holds it up.")
    lost = (isinstance(error, DBAPIError) and error.connection_invalidated) or isinstance(found, _CLOSED)
    if lost or (isinstance(found, psycopg.OperationalError) and found.sqlstate is None):
        # Of a connection that could not be made, there is no code: libpq tells it in a sentence of its own.
        text = text.removeprefix("connection failed: ")
        return no_connection(text)
    if isinstance(found, psycopg.OperationalError):
        return StorageError(f"The database server refuses ({text}).")
    return None


def no_connection(why: str) -> ConnectionLost:
    return ConnectionLost(f"There is no connection to the database server ({why}): see to it, or to the URL.")


def _first_line(error: BaseException | None) -> str:
    lines = [each.strip() for each in str(error).splitlines() if each.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
