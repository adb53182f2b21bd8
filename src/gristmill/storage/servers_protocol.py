"""The seam of the servers that use one store, part of that of metadata (``protocol``)."""

from __future__ import annotations

from typing import Protocol

from gristmill.storage.records import ServerRecord


class Servers(Protocol):
    """Who is there, by the store's clock: a server whose announcement has run out is dead, and what it held is free."""

    async def announce(self, server: ServerRecord, seconds: float) -> None:
        """It is there for ``seconds`` more. Those that have been dead for a day are forgotten."""
        ...

    async def alive(self) -> list[ServerRecord]:
        """Those whose announcement has not run out, in the order in which they started."""
        ...

    async def announced_until(self) -> float | None:
        """When the last announcement runs out, in Unix time by the store's clock; None where no server is there. It
        grows only when one announces itself."""
        ...

    async def leave(self, server_id: str) -> None:
        """It is not there any more. Works on a full disk."""
        ...

    async def leave_all(self) -> None:
        """Nobody is there. Only for a process that knows it is alone with this store."""
        ...
