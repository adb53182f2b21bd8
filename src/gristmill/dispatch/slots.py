"""The places in flight: a semaphore whose size may change while it is in use, shared fairly among flows."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gristmill.dispatch.fair_share import INTERACTIVE, FairShare, Flow


class Place:
    """A request's place; whoever has it says what the request ``cost``, in tokens, where that is known."""

    __slots__ = ("cost", "expected")

    def __init__(self, expected: float) -> None:
        self.expected = expected
        self.cost = expected


class Slots:
    """``async with slots.place(flow)`` waits for a place: within a flow first come first served, among flows by
    ``FairShare``."""

    def __init__(self, limit: int, share: FairShare | None = None) -> None:
        self.limit = limit
        self.in_flight = 0
        self._share = share or FairShare()
        self._waiting: OrderedDict[str, deque[tuple[Flow, asyncio.Future[Place]]]] = OrderedDict()

    def resize(self, limit: int) -> None:
        """A smaller limit takes effect as requests finish; none is interrupted."""
        self.limit = limit
        self._grant()

    def forget(self, flow: str) -> None:
        """The flow has ended; nothing of it is waiting."""
        self._share.forget(flow)

    @asynccontextmanager
    async def place(self, flow: Flow = INTERACTIVE) -> AsyncIterator[Place]:
        place = await self._wait(flow)
        try:
            yield place
        finally:
            self._share.finished(flow, place.expected, place.cost)
            self._leave()

    async def _wait(self, flow: Flow) -> Place:
        if self.in_flight < self.limit and not self._waiting:
            return self._take(flow)
        granted: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(flow.name, deque()).append((flow, granted))
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._leave()
            raise

    def _take(self, flow: Flow) -> Place:
        self.in_flight += 1
        return Place(self._share.granted(flow))

    def _leave(self) -> None:
        self.in_flight -= 1
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            name = self._share.choose(self._waiting)
            queue = self._waiting[name]
            flow, granted = queue.popleft()
            if not queue:
                del self._waiting[name]
            if not granted.done():
                granted.set_result(self._take(flow))
