"""The seam between SQL statements and the database that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Table

from gristmill.storage.sql.migration import SchemaVersion

T = TypeVar("T")


class Database(Protocol):
    """Runs functions of a connection in a transaction each; one that raises has changed nothing. The event loop never
    waits for a disk or a network. What is wrong with the database as such is a StorageError."""

    @property
    def shared(self) -> bool:
        """Whether several servers may use it at the same time."""
        ...

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

    async def read_rows(self, batch_seq: int, work: Callable[[Connection], T]) -> T:
        """The same, with the tables of one batch: they are empty where nothing has been stored of it."""
        ...

    async def write_rows(self, batch_seq: int, work: Callable[[Connection], T]) -> T:
        """In one order with all writes of this process, with the tables of one batch, which are made where there are
        none. ``work`` requires the lease on the batch first: what others write meanwhile is of other batches."""
        ...

    async def drop_rows(self, batch_seq: int, check: Callable[[Connection], None]) -> None:
        """Everything in the tables of one batch, after what this process was asked to write before. ``check`` is called
        first in each transaction that it takes, of which there may be several."""
        ...

    async def update_statistics(self, batch_seq: int, check: Callable[[Connection], None]) -> None:
        """Count anew what is in the tables of one batch, where the database plans its reads by that. ``check`` is
        called first."""
        ...

    def insert_many(self, connection: Connection, table: Table, values: Sequence[dict[str, Any]]) -> None:
        """In ``write_rows``: many rows of a table, as fast as the database can; all ``values`` have the same keys."""
        ...

    def batches_with_rows(self, connection: Connection) -> set[int]:
        """Which batches have something in their tables, whether they are known or not."""
        ...

    def tell(self, connection: Connection, batch_id: str) -> None:
        """With the transaction of a ``write``, to all who ``listen``: something of this batch is to be looked at."""
        ...

    def listen(self, heard: Callable[[str | None], None]) -> None:
        """From now until it is closed, call ``heard`` in the event loop with the ids that other servers ``tell``, and
        this one; with None where some may have been missed. It is a hint only: it may miss any of them."""
        ...

    async def close(self) -> None:
        """Let what was asked for finish, then close."""
        ...
