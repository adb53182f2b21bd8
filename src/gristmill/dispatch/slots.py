"""The places in flight: a semaphore whose size may change while it is in use, shared fairly among flows."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from gristmill.dispatch.fair_share import INTERACTIVE, Charge, FairShare, Flow
from gristmill.dispatch.stop import Stop


class Place:
    """A request's place; whoever has it says what the request ``cost``, in tokens, where that is known."""

    __slots__ = ("charge", "cost")

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.cost = charge.tokens


class _Waiter(NamedTuple):
    flow: Flow
    granted: asyncio.Future[Place]


class Slots:
    """``async with slots.place(flow)`` waits for a place: within a flow first come first served, among flows by
    ``FairShare``. ``alone`` asks for all of them: it waits until nothing is in flight, and nothing is let in meanwhile.
    After each such place the others get a round, as many as there are places: neither side waits for ever.
    """

    def __init__(self, limit: int, share: FairShare | None = None) -> None:
        self.limit = limit
        self.in_flight = 0
        self._share = share or FairShare()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._waiting_alone: deque[_Waiter] = deque()
        self._held_alone = False
        self._others_first = False

    def resize(self, limit: int) -> None:
        """A smaller limit takes effect as requests finish; none is interrupted."""
        self.limit = limit
        self._grant()

    def forget(self, flow: str) -> None:
        """The flow has ended; nothing of it is waiting."""
        self._share.forget(flow)

    @asynccontextmanager
    async def place(
        self, flow: Flow = INTERACTIVE, alone: bool = False, stop: Stop | None = None
    ) -> AsyncIterator[Place]:
        """Raises Stopped if ``stop`` is requested while there is no place yet."""
        place = await self._wait(flow, alone, stop)
        try:
            yield place
        finally:
            self._share.finished(flow, place.charge, place.cost)
            self._leave(alone)

    async def _wait(self, flow: Flow, alone: bool, stop: Stop | None) -> Place:
        if not (alone or self._waiting or self._waiting_alone or self._held_alone) and self.in_flight < self.limit:
            return self._take(flow)
        waiter = _Waiter(flow, asyncio.get_running_loop().create_future())
        queue = self._waiting_alone if alone else self._waiting.setdefault(flow.name, deque())
        queue.append(waiter)
        self._grant()
        try:
            return await (waiter.granted if stop is None else stop.wait_for(waiter.granted))
        except BaseException:
            if waiter.granted.cancel() or waiter.granted.cancelled() or waiter.granted.exception() is not None:
                # The others may have been waiting only for this one.
                self._grant()
            else:
                # Granted, and given up in the same moment.
                self._share.finished(flow, waiter.granted.result().charge, 0.0)
                self._leave(alone)
            raise

    def _take(self, flow: Flow) -> Place:
        self.in_flight += 1
        return Place(self._share.granted(flow))

    def _leave(self, alone: bool) -> None:
        self.in_flight -= 1
        if alone:
            self._held_alone, self._others_first = False, True
        self._grant()

    def _grant(self) -> None:
        if self._held_alone:
            return
        while self._waiting_alone and self._waiting_alone[0].granted.done():
            self._waiting_alone.popleft()
        if self._others_first or not self._waiting_alone:
            self._others_first = False
            while self._waiting and self.in_flight < self.limit:
                self._give(self._next_queue())
        if self._waiting_alone and self.in_flight == 0:
            self._held_alone = True
            self._give(self._waiting_alone)

    def _next_queue(self) -> deque[_Waiter]:
        name = self._share.choose(self._waiting)
        queue = self._waiting[name]
        if len(queue) == 1:
            del self._waiting[name]
        return queue

    def _give(self, queue: deque[_Waiter]) -> None:
        flow, granted = queue.popleft()
        if not granted.done():
            granted.set_result(self._take(flow))
