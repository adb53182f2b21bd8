"""An engine's outage: everything that uses the engine waits together, and one clock decides when to try again."""

from __future__ import annotations

import asyncio


class Outage:
    """Closed while the engine is believed to be up. Delays in seconds, doubling while it stays down."""

    def __init__(self, first_delay: float = 0.5, max_delay: float = 15.0) -> None:
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._delay = first_delay
        self._over = asyncio.Event()
        self._over.set()
        #: What the engine said when it went away; None while it answers.
        self.reason: str | None = None

    @property
    def open(self) -> bool:
        return not self._over.is_set()

    def report_failure(self, reason: str) -> None:
        """Failures of requests that were in flight together count as one."""
        self.reason = reason
        if self.open:
            return
        self._over.clear()
        asyncio.get_running_loop().call_later(self._delay, self._over.set)
        self._delay = min(self._delay * 2, self._max_delay)

    def report_success(self) -> None:
        self.reason = None
        self._delay = self._first_delay

    async def wait(self) -> None:
        await self._over.wait()
