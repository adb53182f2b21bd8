"""The seam between SQL statements and the database that runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from gristmill.storage.sql.migration import SchemaVersion

T = TypeVar("T")


class Database(Protocol):
    """Runs functions of a connection in a transaction each; one that raises has changed nothing. The event loop never
    waits for a disk or a network. What is wrong with the database as such is a StorageError."""

    async def migrate(self) -> None:
        """Bring the tables to this program's version, whole or not at all. Raises StorageError for what is no database,
        or one that a newer version of Gristmill has written."""
        ...

    async def version(self) -> SchemaVersion:
        """Of the tables, beside that of this program; nothing is changed."""
        ...

    async def write(self, work: Callable[[Connection], T], even_if_full: bool = False) -> T:
        """One at a time, in the order in which they were asked for. ``even_if_full``: what lets users free space works
        on a full disk."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Several side by side, each of one moment."""
        ...

    async def close(self) -> None:
        """Let what was asked for finish, then close."""
        ...
